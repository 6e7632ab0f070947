"""Extended vocabularies: old rows stay, new rows are the mean of their pieces, other vocabularies are refused."""

from __future__ import annotations

import numpy as np
import pytest

from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf import extend_embeddings

OLD = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cyclo", "##oxy", "##gen", "##ase", "a", "##a"]
IDS = {token: number for number, token in enumerate(OLD)}
WORDS = ["inhibit", "inhibits", "feverish", "aspirins", "q", "naproxen"]


@pytest.mark.parametrize(
    ("token", "pieces"),
    [
        ("cyclooxygenase", ["cyclo", "##oxy", "##gen", "##ase"]),
        ("##genase", ["##gen", "##ase"]),
        ("aa", ["a", "##a"]),
        ("oxygen", ["[UNK]"]),
        ("##", ["[UNK]"]),
    ],
)
def test_a_token_is_split_as_wordpiece_splits_a_word(token, pieces):
    assert [OLD[number] for number in extend_embeddings.wordpiece_ids(token, IDS)] == pieces


def test_the_pieces_equal_those_of_the_tokenizer(make_pair):
    vocabulary = make_pair().vocabulary
    ids = {token: number for number, token in enumerate(vocabulary)}
    for word, wanted in zip(WORDS, Tokenizer.from_tokens(vocabulary, True).encode_batch(WORDS), strict=True):
        assert extend_embeddings.wordpiece_ids(word, ids) == list(wanted)


def test_an_extension_is_distinguished_from_another_vocabulary():
    assert extend_embeddings.find_new_tokens(OLD, OLD) == []
    assert extend_embeddings.find_new_tokens(OLD, [*OLD, "oxygen"]) == [12]
    placeholder_replaced = ["[PAD]", "kinase", *OLD[2:], "oxygen"]
    assert extend_embeddings.find_new_tokens(OLD, placeholder_replaced) == [1, 12]
    assert extend_embeddings.find_new_tokens(OLD, OLD[:-1]) is None
    assert extend_embeddings.find_new_tokens(OLD, [*OLD[:-1], "kinase", "oxygen"]) is None


@pytest.mark.parametrize("tying", ["embeddings", "none", "gradient_disentangled"])
def test_new_rows_are_the_mean_of_their_pieces_in_every_table(make_pair, tying):
    pair = make_pair(tying=tying)
    old = pair.vocabulary
    more = [f"new{number}" for number in range(100)]  # more than the padding of the old table
    new = [*old, "inhibit", *more]
    added = extend_embeddings.find_new_tokens(old, new)
    grown = named_leaves(extend_embeddings.extend_params(pair.params, old, new, added))
    pieces = [old.index("in"), old.index("##hibit")]
    tables = 0
    for name, leaf in named_leaves(pair.params).items():
        if name.endswith(("/word", "/output_bias")):
            tables += 1
            np.testing.assert_array_equal(grown[name][: len(old)], leaf[: len(old)])
            np.testing.assert_allclose(grown[name][len(old)], leaf[pieces].mean(axis=0), rtol=1e-6)
            assert len(grown[name]) == 256 and not grown[name][len(new) :].any()
        else:
            assert grown[name] is leaf
    assert tables == (3 if tying != "embeddings" else 2)
