"""A vocabulary that has grown: new tokens begin as the mean of the pieces that they were cut into before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import map_named
from electramed_jax.config.pretrain import pad_vocab_size
from electramed_jax.data.tokenizer.vocab import UNK

UNUSED_TOKEN = re.compile(r"\[unused\d+\]")  # entries that BERT's vocabularies keep free
TOKEN_LEAVES = ("word", "output_bias")  # leaves with a row for every token
CONTINUATION = "##"


def find_new_tokens(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """Ids of the tokens by which a vocabulary has grown; None where it is another one.

    Every old token keeps its id, unless it was kept free.
    """
    if len(new) < len(old):
        return None
    added = [number for number, (a, b) in enumerate(zip(old, new)) if a != b]
    if any(not UNUSED_TOKEN.fullmatch(old[number]) for number in added):
        return None
    return added + list(range(len(old), len(new)))


def extend_params(
    params: Mapping[str, Any], old: Sequence[str], new: Sequence[str], added: Sequence[int]
) -> dict[str, Any]:
    """The parameters with a row for every token of `new`, padded as the larger vocabulary is.

    Args:
      params: parameter tree of one network or both, numpy.
      old, new: tokens by id.
      added: from `find_new_tokens`.
    """
    ids = {token: number for number, token in enumerate(old)}
    if UNK not in ids:
        raise UserError(f"a vocabulary without {UNK} cannot be extended")
    pieces = [wordpiece_ids(new[number], ids) for number in added]
    rows = pad_vocab_size(len(new))

    def grow(name: str, leaf: np.ndarray) -> np.ndarray:
        if name.rsplit("/", 1)[-1] not in TOKEN_LEAVES:
            return leaf
        grown = np.zeros((rows, *leaf.shape[1:]), leaf.dtype)
        grown[: len(old)] = leaf[: len(old)]
        for number, found in zip(added, pieces, strict=True):
            grown[number] = leaf[found].mean(axis=0)
        return grown

    return map_named(grow, params)


def wordpiece_ids(token: str, ids: Mapping[str, int]) -> list[int]:
    """WordPiece's pieces of a token: of what is left, the longest that the vocabulary knows; [UNK] where none fits."""
    found, start, text = [], 0, token.removeprefix(CONTINUATION)
    while start < len(text):
        prefix = CONTINUATION if start or token.startswith(CONTINUATION) else ""
        ends = range(len(text), start, -1)
        end = next((end for end in ends if prefix + text[start:end] in ids), None)
        if end is None:
            return [ids[UNK]]
        found.append(ids[prefix + text[start:end]])
        start = end
    return found or [ids[UNK]]
