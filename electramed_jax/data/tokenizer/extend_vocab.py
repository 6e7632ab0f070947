"""Appends new tokens to the vocabulary of a released model, for texts of a field that it saw little of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

_BATCH = 1024


def extend(old: Sequence[str], texts: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """Returns the old tokens, then the new tokens that these texts use most.

    The candidates are the tokens of a vocabulary trained on the texts. Most of its merges are intermediate steps to a
    word and rarely used themselves. So the texts are tokenized with all candidates and each candidate's uses counted.

    Args:
      old: tokens by id; they keep their ids.
      texts: iterated three times, so not a generator.
      size: number of tokens in total; a small corpus may give fewer.
      lower_case: casing of the model of the old vocabulary.

    Raises:
      UserError: `size` leaves no room for new tokens, or an error of `vocab.train_wordpiece`.
    """
    if size <= len(old):
        raise UserError(f"size={size} leaves no room for new tokens; the old vocabulary has {len(old):,}")
    vocab.special_ids(old)
    known = set(old)
    candidates = [token for token in vocab.train_wordpiece(texts, size, lower_case) if token not in known]
    tokenizer = Tokenizer.from_tokens([*old, *candidates], lower_case)
    uses = np.zeros(len(tokenizer.tokens), np.int64)
    remaining = iter(texts)
    while batch := list(itertools.islice(remaining, _BATCH)):
        for ids in tokenizer.encode_batch(batch):
            uses += np.bincount(ids, minlength=len(uses))
    ranked = np.argsort(-uses[len(old) :], kind="stable")
    used = [candidates[number] for number in ranked if uses[len(old) + number]]
    return [*old, *used[: size - len(old)]]
