"""Applies a pre-trained pair to text: which words were replaced, and what the generator proposes for a masked word."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.rounding import round_up
from electramed_jax.config.pretrain import Config
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR
from electramed_jax.hf.pretrained.pair import PretrainedPair, load_pair
from electramed_jax.model import masking
from electramed_jax.pretrain import state
from electramed_jax.training.state import Params

TOP_K = 5  # proposals of the generator for a masked word
MAX_ROWS = 16  # of a forward pass
_LENGTH_STEP = 32  # rows have a multiple of this length, so that few lengths are compiled
_PLACES_STEP = 4  # and a multiple of this number of masked positions

Span = tuple[int, int]  # first character and one past the last


class Proposal(NamedTuple):
    """A word piece that the generator proposes, and its probability."""

    token: str
    probability: float


class Word(NamedTuple):
    """A word of a text, split at punctuation, with the predictions for it.

    Attributes:
      start, stop: its characters, start .. stop-1.
      replaced_probability: that a generator replaced the word, the largest of its word pieces; of a masked word that of
        the first proposal in its place. None without a discriminator.
      proposals: of a masked word, the most likely word pieces, best first; () without a generator.
    """

    start: int
    stop: int
    replaced_probability: float | None
    proposals: tuple[Proposal, ...] = ()


class _Unit(NamedTuple):
    """A word as the networks read it: its characters, its word pieces, and whether it is one [MASK]."""

    start: int
    stop: int
    ids: list[int]
    is_masked: bool


class PairPredictor:
    """Applies a pair to texts of any length. A text longer than a row is cut into rows between words."""

    def __init__(self, pair: PretrainedPair):
        """Moves the parameters to the first device.

        Raises:
          UserError: an Electric model, which gives energies instead of probabilities.
        """
        if pair.is_electric:
            raise UserError(
                f"{pair.source}: an Electric model gives each token an energy, not a probability of replacement; score "
                "texts with electramed score"
            )
        self.pair = pair
        self._params = jax.device_put(pair.params, jax.local_devices()[0])
        self._discriminate = jax.jit(functools.partial(_discriminate, pair.config))
        self._propose = jax.jit(functools.partial(_propose, pair.config))

    def words(self, texts: Sequence[str], masks: Sequence[Sequence[Span]] | None = None) -> list[list[Word]]:
        """Returns the words of each text.

        Args:
          masks: characters that are masked in each text, each span as one [MASK]; None: nothing is masked.
        """
        units = [self._split(text, spans) for text, spans in zip(texts, masks or [()] * len(texts), strict=True)]
        rows = [(text, row) for text, one in enumerate(units) for row in self._rows(one)]
        proposals = self._proposals([row for _, row in rows])
        filled = [self._fill(row, found) for (_, row), found in zip(rows, proposals, strict=True)]
        probabilities = self._probabilities(filled)
        words: list[list[Word]] = [[] for _ in texts]
        for (text, row), found, replaced in zip(rows, proposals, probabilities, strict=True):
            made = iter(found)
            for unit, probability in zip(row, replaced, strict=True):
                guesses = next(made, ()) if unit.is_masked else ()
                named = tuple(Proposal(self.pair.tokenizer.tokens[token], score) for token, score in guesses)
                words[text].append(Word(unit.start, unit.stop, probability, named))
        return words

    def _split(self, text: str, spans: Sequence[Span]) -> list[_Unit]:
        """Returns the words of a text; the words that share a character with one of `spans` are one masked unit."""
        tokenizer = self.pair.tokenizer
        ((ids, offsets),) = tokenizer.encode_with_offsets([text])
        units: list[_Unit] = []
        current: Span | None = None
        for piece, (start, stop) in zip(ids.tolist(), offsets.tolist(), strict=True):
            span = next((span for span in spans if span[0] < stop and start < span[1]), None)
            if units and span is not None and span == current:
                units[-1] = units[-1]._replace(stop=stop)
            elif units and span is None and current is None and tokenizer.tokens[piece].startswith("##"):
                units[-1].ids.append(piece)
                units[-1] = units[-1]._replace(stop=stop)
            else:
                units.append(_Unit(start, stop, [tokenizer.special.mask if span else piece], span is not None))
            current = span
        return units

    def _rows(self, units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
        """Yields the units of each row: as many as fit between [CLS] and [SEP]."""
        longest = self.pair.config.data.max_seq_length - 2
        row: list[_Unit] = []
        pieces = 0
        for unit in units:
            unit = unit._replace(ids=unit.ids[:longest])
            if pieces + len(unit.ids) > longest:
                yield row
                row, pieces = [], 0
            row.append(unit)
            pieces += len(unit.ids)
        if row:
            yield row

    def _proposals(self, rows: Sequence[Sequence[_Unit]]) -> list[list[list[tuple[int, float]]]]:
        """Returns the (token id, probability) pairs of each masked unit of each row."""
        masked = [number for number, row in enumerate(rows) if any(unit.is_masked for unit in row)]
        found: list[list[list[tuple[int, float]]]] = [[] for _ in rows]
        if GENERATOR not in self.pair.networks or not masked:
            return found
        for number in masked:
            ids = _ids(rows[number])
            places = [place for place, token in enumerate(ids) if token == self.pair.tokenizer.special.mask]
            positions = np.full((1, round_up(len(places), _PLACES_STEP)), 1, np.int32)
            positions[0, : len(places)] = np.array(places) + 1  # after [CLS]
            tokens, scores = jax.device_get(self._propose(self._params, self._pad([ids]), positions))
            for token, score, _ in zip(tokens[0].tolist(), scores[0].tolist(), places, strict=False):
                found[number].append(list(zip(token, score, strict=True)))
        return found

    def _fill(self, row: Sequence[_Unit], proposals: Sequence[list[tuple[int, float]]]) -> list[_Unit]:
        """Returns the row with the first proposal in place of each [MASK], which the discriminator never reads."""
        made = iter(proposals)
        return [
            unit._replace(ids=[best[0][0]]) if unit.is_masked and (best := next(made, None)) else unit for unit in row
        ]

    def _probabilities(self, rows: Sequence[Sequence[_Unit]]) -> list[list[float | None]]:
        """Returns the largest probability of the pieces of each unit of each row."""
        if DISCRIMINATOR not in self.pair.networks:
            return [[None] * len(row) for row in rows]
        results: list[list[float | None]] = []
        for first in range(0, len(rows), MAX_ROWS):
            chunk = rows[first : first + MAX_ROWS]
            scores = jax.device_get(self._discriminate(self._params, self._pad([_ids(row) for row in chunk])))
            for row, of_row in zip(chunk, scores, strict=False):
                ends = np.cumsum([len(unit.ids) for unit in row])
                results.append([float(part.max()) for part in np.split(of_row[1 : ends[-1] + 1], ends[:-1])])
        return results

    def _pad(self, rows: Sequence[list[int]]) -> np.ndarray:
        """Returns the rows with [CLS], [SEP] and [PAD]: one, or `MAX_ROWS` of them, so that few shapes are compiled."""
        special, longest = self.pair.tokenizer.special, self.pair.config.data.max_seq_length
        length = min(longest, round_up(2 + max(map(len, rows)), _LENGTH_STEP))
        batch = np.full((1 if len(rows) == 1 else MAX_ROWS, length), special.pad, np.int32)
        for line, ids in zip(batch, rows, strict=False):
            line[: len(ids) + 2] = [special.cls, *ids, special.sep]
        return batch


def _ids(row: Sequence[_Unit]) -> list[int]:
    return [piece for unit in row for piece in unit.ids]


def _discriminate(config: Config, params: Params, ids_BT: jax.Array) -> jax.Array:
    """Returns the probabilities that each token was replaced, float32[B, T]."""
    electra = state.merge_params(config, params)
    return jax.nn.sigmoid(electra.discriminator_logits(ids_BT, masking.packed_segments(ids_BT, config.data.special)))


def _propose(config: Config, params: Params, ids_BT: jax.Array, positions_BM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the `TOP_K` most likely tokens at the positions and their probabilities, [B, M, TOP_K] each."""
    electra = state.merge_params(config, params)
    weights_BM = jnp.ones(positions_BM.shape, jnp.float32)
    masked = masking.MaskedTokens(positions_BM, weights_BM, positions_BM, ids_BT)
    logits_BMV = electra.generator_logits(masked, masking.packed_segments(ids_BT, config.data.special))
    probabilities_BMK, tokens_BMK = jax.lax.top_k(jax.nn.softmax(logits_BMV.astype(jnp.float32)), TOP_K)
    return tokens_BMK, probabilities_BMK


def predict_replaced(folder: str, texts: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Returns the words of each text with the probability that a generator replaced them.

    Args:
      folder: discriminator folder of `electramed export`, or another folder of `load_pair` with a discriminator.
      texts: each word is lower-cased if the model is.

    Raises:
      UserError: see `load_pair`; or the folder has no discriminator.
    """
    pair = load_pair(folder)
    if DISCRIMINATOR not in pair.networks:
        raise UserError(f"{folder}: a generator alone; wanted a folder with a discriminator")
    texts = [text.lower() if pair.tokenizer.lower_case else text for text in texts]
    return [
        [(text[word.start : word.stop], word.replaced_probability or 0.0) for word in words]
        for text, words in zip(texts, PairPredictor(pair).words(texts), strict=True)
    ]
