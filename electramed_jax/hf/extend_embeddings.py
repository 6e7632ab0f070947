"""A vocabulary that has grown: new tokens begin as the mean of the pieces that they were cut into before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import map_named
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.data.tokenizer.vocab import UNK

UNUSED = re.compile(r"\[unused\d+\]")  # entries that BERT's vocabularies keep free
PER_TOKEN = ("word", "output_bias")  # leaves with a row for every token
CONTINUES = "##"


def new_tokens(old: Sequence[str], new: Sequence[str]) -> list[int] | None:
    """Ids of the tokens by which a vocabulary has grown; None where it is another one.

    Every old token keeps its id, unless it was kept free.
    """
    if len(new) < len(old):
        return None
    added = [number for number, (a, b) in enumerate(zip(old, new)) if a != b]
    if any(not UNUSED.fullmatch(old[number]) for number in added):
        return None
    return added + list(range(len(old), len(new)))


def extended(params: Mapping[str, Any], old: Sequence[str], new: Sequence[str], added: Sequence[int]) -> dict[str, Any]:
    """The parameters with a row for every token of `new`, padded as the larger vocabulary is.

    Args:
      params: parameter tree of one network or both, numpy.
      old, new: tokens by id.
      added: from `new_tokens`.
    """
    ids = {token: number for number, token in enumerate(old)}
    if UNK not in ids:
        raise UserError(f"a vocabulary without {UNK} cannot be extended")
    pieces = [pieces_of(new[number], ids) for number in added]
    rows = ModelConfig(vocab_size=len(new)).padded_vocab_size

    def grow(name: str, leaf: np.ndarray) -> np.ndarray:
        if name.rsplit("/", 1)[-1] not in PER_TOKEN:
            return leaf
        grown = np.zeros((rows, *leaf.shape[1:]), leaf.dtype)
        grown[: len(old)] = leaf[: len(old)]
        for number, found in zip(added, pieces, strict=True):
            grown[number] = leaf[found].mean(axis=0)
        return grown

    return map_named(grow, params)


def pieces_of(token: str, ids: Mapping[str, int]) -> list[int]:
    """WordPiece's pieces of a token: of what is left, the longest that the vocabulary knows; [UNK] where none fits."""
    found, start, text = [], 0, token.removeprefix(CONTINUES)
    while start < len(text):
        prefix = CONTINUES if start or token.startswith(CONTINUES) else ""
        ends = range(len(text), start, -1)
        end = next((end for end in ends if prefix + text[start:end] in ids), None)
        if end is None:
            return [ids[UNK]]
        found.append(ids[prefix + text[start:end]])
        start = end
    return found or [ids[UNK]]
