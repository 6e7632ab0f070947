"""Appends new tokens to the vocabulary of a released model, for texts of a field that it saw little of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.data.tokenizer.word_counts import WordCounts
from electramed_jax.data.tokenizer.wordpiece_trainer import train_wordpiece

_BATCH = 1024


def extend(old: Sequence[str], counts: WordCounts, size: int) -> list[str]:
    """Returns the old tokens, then the new tokens that the counted texts use most.

    The candidates are the tokens of a vocabulary trained on the texts. Most of its merges are intermediate steps to a
    word and rarely used themselves. So all words are tokenized with all candidates and each candidate's uses counted.

    Args:
      old: tokens by id; they keep their ids.
      counts: words of the texts, with the casing of the model of the old vocabulary.
      size: number of tokens in total; a small corpus may give fewer.

    Raises:
      UserError: `size` leaves no room for new tokens, or an error of `train_wordpiece`.
    """
    check_size(old, size)
    known = set(old)
    candidates = [token for token in train_wordpiece(counts, size) if token not in known]
    tokenizer = Tokenizer.from_tokens([*old, *candidates], counts.lower_case, keep_accents=counts.keep_accents)
    uses = np.zeros(len(tokenizer.tokens), np.int64)
    remaining = iter(counts)
    while batch := list(itertools.islice(remaining, _BATCH)):
        words, times = zip(*batch, strict=True)
        ids = tokenizer.encode_batch(words)
        np.add.at(uses, np.concatenate(ids), np.repeat(times, [len(of_word) for of_word in ids]))
    ranked = np.argsort(-uses[len(old) :], kind="stable")
    used = [candidates[number] for number in ranked if uses[len(old) + number]]
    return [*old, *used[: size - len(old)]]


def check_size(old: Sequence[str], size: int) -> None:
    """Checks that a vocabulary can be extended to a size.

    Raises:
      UserError: `size` leaves no room for new tokens, or special tokens are missing.
    """
    if size <= len(old):
        raise UserError(f"size={size} leaves no room for new tokens; the old vocabulary has {len(old):,}")
    vocab.special_ids(old)
