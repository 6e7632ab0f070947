"""Scores texts by their pseudo-log-likelihood under an Electric model.

Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 4: the sum over tokens of
log p(token | all others), of which the model gives -energy, the part that depends on the token.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.rounding import round_up
from electramed_jax.config.pretrain import Config
from electramed_jax.hf.pretrained.pair import PretrainedPair
from electramed_jax.model import masking
from electramed_jax.pretrain import state
from electramed_jax.training.state import Params

ROWS = 16  # of a forward pass
_LENGTH_STEP = 32  # rows have a multiple of this length, so that few lengths are compiled


class TextScore(NamedTuple):
    """Score of a text.

    Attributes:
      pseudo_log_likelihood: sum of -energy over its word pieces; comparable between texts of equally many pieces.
      tokens: number of its word pieces.
    """

    pseudo_log_likelihood: float
    tokens: int


class PseudoLikelihood:
    """Scores texts of any length. A text longer than a row is cut into rows, which do not see each other."""

    def __init__(self, pair: PretrainedPair):
        """Moves the parameters to the first device.

        Raises:
          UserError: not an Electric model.
        """
        if not pair.is_electric:
            raise UserError(
                f"{pair.source}: an ELECTRA model, which has no likelihood of a text; wanted one that was trained with "
                "config.objective.kind=electric"
            )
        self._pair = pair
        self._params = jax.device_put(pair.params, jax.local_devices()[0])
        self._negative_energies = jax.jit(functools.partial(_sum_negative_energies, pair.config))

    def score(self, texts: Iterable[str]) -> Iterator[TextScore]:
        """Yields the score of each text, in order."""
        longest = self._pair.config.data.max_seq_length - 2  # [CLS] and [SEP]
        waiting: list[tuple[int, np.ndarray]] = []  # (number of its text, word pieces) of each row
        scores: dict[int, TextScore] = {}
        number = done = 0
        for text in texts:
            (pieces,) = self._pair.tokenizer.encode_batch([text])
            scores[number] = TextScore(0.0, len(pieces))
            waiting += [(number, pieces[start : start + longest]) for start in range(0, len(pieces), longest)]
            number += 1
            while len(waiting) >= ROWS:
                self._add(scores, waiting[:ROWS])
                waiting = waiting[ROWS:]
            complete = waiting[0][0] if waiting else number
            for one in range(done, complete):
                yield scores.pop(one)
            done = complete
        if waiting:
            self._add(scores, waiting)
        for one in range(done, number):
            yield scores.pop(one)

    def _add(self, scores: dict[int, TextScore], rows: Sequence[tuple[int, np.ndarray]]) -> None:
        special, longest = self._pair.tokenizer.special, max(len(pieces) for _, pieces in rows)
        length = min(self._pair.config.data.max_seq_length, round_up(longest + 2, _LENGTH_STEP))
        ids_BT = np.full((ROWS, length), special.pad, np.int32)
        for row_T, (_, pieces) in zip(ids_BT, rows, strict=False):
            row_T[: len(pieces) + 2] = [special.cls, *pieces, special.sep]
        sums_B = jax.device_get(self._negative_energies(self._params, ids_BT))
        for (number, _), value in zip(rows, sums_B.tolist(), strict=False):
            score = scores[number]
            scores[number] = score._replace(pseudo_log_likelihood=score.pseudo_log_likelihood + value)


def _sum_negative_energies(config: Config, params: Params, ids_BT: jax.Array) -> jax.Array:
    """Returns the sum of -energy over the tokens of each row except special tokens, float32[B]."""
    model = state.merge_params(config, params)
    energy_BT = model.discriminator_logits(ids_BT, masking.packed_segments(ids_BT, config.data.special))
    return -jnp.sum(jnp.where(masking.maskable(ids_BT, config.data.special), energy_BT, 0.0), axis=1)
