"""The vocabulary of a released model with new tokens behind it, for texts of a field it has not seen much of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

BATCH = 1024


def extend(old: Sequence[str], texts: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """Adds the tokens that these texts would use most.

    Candidates are those of a vocabulary trained on the texts. Most of its merges are steps on the way to a word and no
    use by themselves, so each candidate is counted where it would stand if all were there.

    Args:
      old: tokens by id; they keep their ids.
      texts: walked three times; no generator.
      size: tokens wanted in all; a small corpus may give fewer.
      lower_case: as the old vocabulary's model has it.

    Raises:
      UserError: `size` leaves no room, or as `vocab.train`.
    """
    if size <= len(old):
        raise UserError(f"size={size} leaves no room for new tokens; the old vocabulary has {len(old):,}")
    vocab.special_ids(old)
    known = set(old)
    candidates = [token for token in vocab.train_wordpiece(texts, size, lower_case) if token not in known]
    tokenizer = Tokenizer.from_tokens([*old, *candidates], lower_case)
    uses = np.zeros(len(tokenizer.tokens), np.int64)
    rest = iter(texts)
    while batch := list(itertools.islice(rest, BATCH)):
        for ids in tokenizer.encode_batch(batch):
            uses += np.bincount(ids, minlength=len(uses))
    ranked = np.argsort(-uses[len(old) :], kind="stable")
    used = [candidates[number] for number in ranked if uses[len(old) + number]]
    return [*old, *used[: size - len(old)]]
