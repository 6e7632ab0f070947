"""Vocabularies extended with the tokens that texts of a field use most."""

from __future__ import annotations

import pytest
from trained_vocab import counted, train

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import extend_vocab

TEXTS = [
    "The kinase phosphorylates the receptor kinase.",
    "Kinases and receptors bind; the binding of kinases is specific.",
    "Patients received 5 mg of naïve β-blockers (n = 12).",
] * 3
OLD = train(["the of and binding specific patients"] * 3, 60)


def extend(old: list[str], texts: list[str], size: int) -> list[str]:
    with counted(texts) as counts:
        return extend_vocab.extend(old, counts, size)


def test_old_tokens_keep_their_ids_and_the_most_used_new_ones_follow():
    new = extend(OLD, TEXTS, 76)
    assert new[: len(OLD)] == OLD and len(set(new)) == len(new) == 76
    added = new[len(OLD) :]
    assert "kinase" in added


def test_intermediate_merges_of_a_word_are_not_added():
    added = extend(OLD, TEXTS, 400)[len(OLD) :]
    assert "kinase" in added and "kinases" in added and "kinas" not in added and "kin" not in added


def test_a_size_without_room_is_refused():
    with pytest.raises(UserError, match="leaves no room"):
        extend(OLD, TEXTS, len(OLD))


def test_a_vocabulary_without_special_tokens_is_refused():
    with pytest.raises(UserError, match="lacks"):
        extend(["a", "b"], TEXTS, 100)
