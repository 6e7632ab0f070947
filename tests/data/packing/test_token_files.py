from __future__ import annotations

import itertools

import numpy as np
import pytest

from electramed_jax.common.storage import files
from electramed_jax.data.packing import token_files
from electramed_jax.data.packing.pack import SentenceEnds
from electramed_jax.data.readers.document import Document
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

WORDS = ["kinase", "binds", "methods", ".", "?", ":", "0", "5"]


@pytest.fixture
def tokenizer(tmp_path) -> Tokenizer:
    vocab.write_vocab(str(tmp_path / "vocab.txt"), [*vocab.SPECIAL_TOKENS, *WORDS])
    return Tokenizer(str(tmp_path / "vocab.txt"))


def document(name: str, title: str, *sections: str) -> Document:
    return Document(name, None, title, tuple((None, text) for text in sections), None, "a.jsonl")


def tokens_of(lengths: list[int]) -> token_files.Tokens:
    """Documents of as many sentences as tokens, less the first; each token tells its place."""
    counts = np.array([length // 2 for length in lengths])
    return token_files.Tokens(
        np.arange(sum(lengths), dtype=np.uint16),
        np.array(lengths),
        np.arange(len(lengths), dtype=np.uint64),
        np.arange(counts.sum()) + 1,
        counts,
    )


def equal(one: token_files.Tokens, two: token_files.Tokens) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, two, strict=True))


def test_sentences_end_at_their_mark_but_not_in_a_number_and_at_the_end_of_a_line(tokenizer):
    ends = SentenceEnds.of(tokenizer.tokens)
    text = document("x", "Kinase", "Kinase binds. Binds 0.5 kinase? Kinase", "METHODS: binds.")
    (tokens,) = token_files.tokenize([text, document("y", "", "\ue000")], tokenizer, ends)
    assert tokens.sentences.tolist() == [1, 3, 6, 1, 4]
    assert tokens.sentence_counts.tolist() == [5, 0]
    assert tokens.lengths.tolist() == [15, 0]


def test_the_tokens_of_a_document_are_those_of_its_text_with_sentences_and_without(tokenizer):
    texts = [document(str(number), "Kinase binds", "binds. " * number, "kinase") for number in range(600)]
    plain = token_files.join(token_files.tokenize(texts, tokenizer))
    split = token_files.join(token_files.tokenize(texts, tokenizer, SentenceEnds.of(tokenizer.tokens)))
    wanted = tokenizer.encode_batch([text.text for text in texts])
    np.testing.assert_array_equal(plain.ids, np.concatenate(wanted))
    np.testing.assert_array_equal(plain.lengths, list(map(len, wanted)))
    for name in ("ids", "lengths", "draws"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(split, name))
    assert len(plain.sentences) == plain.sentence_counts.sum() == 0
    assert split.sentences.sum() == len(split.ids)


@pytest.mark.parametrize("folder", ["local", "memory://tokens"])
def test_what_was_written_is_read_back_in_blocks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 10)
    path = files.join(str(tmp_path) if folder == "local" else folder, "tokens")
    whole = tokens_of([4, 9, 0, 3, 30, 2, 5])
    token_files.write(path, [whole.part(number, number + 1) for number in range(7)])
    blocks = list(token_files.read(path))
    assert [len(block.ids) for block in blocks] == [13, 33, 7]
    assert equal(token_files.join(blocks), whole)


def test_a_file_of_no_documents_has_no_blocks(tmp_path):
    token_files.write(str(tmp_path / "tokens"), [])
    assert list(token_files.read(str(tmp_path / "tokens"))) == []


def test_windows_are_whole_documents_and_do_not_depend_on_where_blocks_end():
    whole = tokens_of([4, 9, 1, 3, 30, 2, 5, 7, 7, 1])
    wanted = list(token_files.windows([whole], 14))
    assert [window.lengths.tolist() for window in wanted] == [[4, 9, 1], [3, 30], [2, 5, 7], [7, 1]]
    assert equal(token_files.join(wanted), whole)
    for cuts in ([0, 1, 10], [0, 5, 6, 10], list(range(11))):
        blocks = [whole.part(start, stop) for start, stop in itertools.pairwise(cuts)]
        assert all(map(equal, token_files.windows(blocks, 14), wanted))


def test_documents_without_tokens_can_be_left_out():
    some = tokens_of([4, 0, 3, 0]).without_wordless()
    assert equal(some, tokens_of([4, 3])._replace(draws=np.array([0, 2], np.uint64)))
