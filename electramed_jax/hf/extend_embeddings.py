"""Extends a model to a larger vocabulary: the row of a new token is the mean of the rows of its former word pieces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import map_named
from electramed_jax.config.pretrain import pad_vocab_size
from electramed_jax.data.tokenizer.vocab import UNK

UNUSED_TOKEN = re.compile(r"\[unused\d+\]")  # placeholders in BERT's vocabularies, which new tokens may replace
TOKEN_LEAVES = ("word", "output_bias")  # last name of leaves with a row per token
CONTINUATION = "##"  # prefix of word pieces inside a word


def find_new_tokens(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """Returns the ids of the tokens that `new` adds to `old`; None if `new` does not extend `old`.

    In an extension every old token keeps its id, except `UNUSED_TOKEN`s, which may be replaced.
    """
    if len(new) < len(old):
        return None
    added = [number for number, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if any(not UNUSED_TOKEN.fullmatch(old[number]) for number in added):
        return None
    return added + list(range(len(old), len(new)))


def extend_params(
    params: Mapping[str, Any], old: Sequence[str], new: Sequence[str], added: Sequence[int]
) -> dict[str, Any]:
    """Returns the parameters with a row for every token of `new`, padded as a table of that size.

    Args:
      params: parameter tree of one network or both, numpy.
      old, new: tokens by id.
      added: ids of the new tokens, from `find_new_tokens`.

    Raises:
      UserError: `old` has no [UNK].
    """
    ids = {token: number for number, token in enumerate(old)}
    if UNK not in ids:
        raise UserError(f"a vocabulary without {UNK} cannot be extended; wanted a WordPiece vocabulary")
    pieces = [wordpiece_ids(new[number], ids) for number in added]
    num_rows = pad_vocab_size(len(new))

    def grow(name: str, leaf: np.ndarray) -> np.ndarray:
        if name.rsplit("/", 1)[-1] not in TOKEN_LEAVES:
            return leaf
        grown = np.zeros((num_rows, *leaf.shape[1:]), leaf.dtype)
        grown[: len(old)] = leaf[: len(old)]
        for number, ids_of_pieces in zip(added, pieces, strict=True):
            grown[number] = leaf[ids_of_pieces].mean(axis=0)
        return grown

    return map_named(grow, params)


def wordpiece_ids(token: str, ids: Mapping[str, int]) -> list[int]:
    """Returns the ids of a token's word pieces, longest match first; [UNK] if no piece matches."""
    pieces: list[int] = []
    start, text = 0, token.removeprefix(CONTINUATION)
    while start < len(text):
        prefix = CONTINUATION if start or token.startswith(CONTINUATION) else ""
        ends = range(len(text), start, -1)
        end = next((end for end in ends if prefix + text[start:end] in ids), None)
        if end is None:
            return [ids[UNK]]
        pieces.append(ids[prefix + text[start:end]])
        start = end
    return pieces or [ids[UNK]]
