"""Predicts with an exported discriminator which words of a text were replaced."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, DataConfig, ObjectiveConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.hf import convert
from electramed_jax.hf.format.mapping import DISCRIMINATOR
from electramed_jax.model import masking
from electramed_jax.pretrain import state
from electramed_jax.training import state as state_lib


def predict_replaced(folder: str, texts: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Returns the words of each text with the probability that a generator replaced them.

    Args:
      folder: discriminator folder of `electramed export`.
      texts: truncated to the model's positions.

    Returns:
      Per text, (word, probability) in order. The probability of a word is the largest of its word pieces.

    Raises:
      UserError: as `convert.import_folder`.
    """
    imported = convert.import_folder(folder, tying="embeddings")
    tokenizer = Tokenizer(files.join(folder, VOCAB_FILE), imported.lower_case is not False)
    model = imported.sizes[DISCRIMINATOR].to_model_config()
    longest = model.max_positions
    config = Config(
        model=model,
        objective=ObjectiveConfig(kind="uniform"),  # no generator
        data=DataConfig(max_seq_length=longest, special=tokenizer.special),
    )
    pieces = [ids[: longest - 2] for ids in tokenizer.encode_batch(texts)]
    rows = np.full((len(texts), longest), tokenizer.special.pad, np.int32)
    for row, ids in zip(rows, pieces, strict=True):
        row[: len(ids) + 2] = [tokenizer.special.cls, *ids, tokenizer.special.sep]

    @jax.jit
    def probabilities(params: state_lib.Params, ids_BT: jax.Array) -> jax.Array:
        electra = state.merge_params(config, params)
        return jax.nn.sigmoid(electra.discriminator_logits(ids_BT, masking.packed_segments(ids_BT, tokenizer.special)))

    scores = np.asarray(probabilities(imported.params, rows))
    return [
        _join_pieces([tokenizer.tokens[i] for i in ids], score[1 : len(ids) + 1])
        for ids, score in zip(pieces, scores, strict=True)
    ]


def _join_pieces(pieces: Sequence[str], scores: np.ndarray) -> list[tuple[str, float]]:
    words: list[tuple[str, float]] = []
    for piece, score in zip(pieces, scores.tolist(), strict=True):
        if piece.startswith("##") and words:
            word, highest = words[-1]
            words[-1] = (word + piece.removeprefix("##"), max(highest, score))
        else:
            words.append((piece, score))
    return words
