"""Tokenized documents in scratch files: sentences, blocks, windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
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
    """Returns documents of the given lengths with length // 2 sentences each; token n has id n."""
    counts = np.array([length // 2 for length in lengths])
    return token_files.Tokens(
        np.arange(sum(lengths), dtype=np.uint16),
        np.array(lengths),
        np.arange(len(lengths), dtype=np.uint64),
        np.arange(counts.sum()) + 1,
        counts,
    )


def equal(first: token_files.Tokens, second: token_files.Tokens) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second, strict=True))


def test_sentences_end_at_their_mark_but_not_in_a_number_and_at_the_end_of_a_line(tokenizer):
    ends = SentenceEnds.from_vocab(tokenizer.tokens)
    text = document("x", "Kinase", "Kinase binds. Binds 0.5 kinase? Kinase", "METHODS: binds.")
    (tokens,) = token_files.tokenize([text, document("y", "", "\ue000")], tokenizer, ends)
    assert tokens.sentence_lengths.tolist() == [1, 3, 6, 1, 4]
    assert tokens.sentence_counts.tolist() == [5, 0]
    assert tokens.lengths.tolist() == [15, 0]


def test_the_tokens_of_a_document_are_those_of_its_text_with_sentences_and_without(tokenizer):
    texts = [document(str(number), "Kinase binds", "binds. " * number, "kinase") for number in range(600)]
    plain = token_files.concatenate(token_files.tokenize(texts, tokenizer))
    split = token_files.concatenate(token_files.tokenize(texts, tokenizer, SentenceEnds.from_vocab(tokenizer.tokens)))
    wanted = tokenizer.encode_batch([text.text for text in texts])
    np.testing.assert_array_equal(plain.ids, np.concatenate(wanted))
    np.testing.assert_array_equal(plain.lengths, list(map(len, wanted)))
    for name in ("ids", "lengths", "random_bits"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(split, name))
    assert len(plain.sentence_lengths) == plain.sentence_counts.sum() == 0
    assert split.sentence_lengths.sum() == len(split.ids)


@pytest.mark.parametrize("folder", ["local", "memory://tokens"])
def test_written_documents_are_read_back_in_blocks(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 10)
    path = files.join(str(tmp_path) if folder == "local" else folder, "tokens")
    whole = tokens_of([4, 9, 0, 3, 30, 2, 5])
    token_files.write_blocks(path, [whole.slice(number, number + 1) for number in range(7)])
    blocks = list(token_files.read_blocks(path))
    assert [len(block.ids) for block in blocks] == [13, 33, 7]
    assert equal(token_files.concatenate(blocks), whole)


def test_a_file_of_no_documents_has_no_blocks(tmp_path):
    token_files.write_blocks(str(tmp_path / "tokens"), [])
    assert list(token_files.read_blocks(str(tmp_path / "tokens"))) == []


def test_windows_are_whole_documents_and_do_not_depend_on_block_boundaries():
    whole = tokens_of([4, 9, 1, 3, 30, 2, 5, 7, 7, 1])
    wanted = list(token_files.windows([whole], 14))
    assert [window.lengths.tolist() for window in wanted] == [[4, 9, 1], [3, 30], [2, 5, 7], [7, 1]]
    assert equal(token_files.concatenate(wanted), whole)
    for cuts in ([0, 1, 10], [0, 5, 6, 10], list(range(11))):
        blocks = [whole.slice(start, stop) for start, stop in itertools.pairwise(cuts)]
        assert all(map(equal, token_files.windows(blocks, 14), wanted))


def test_documents_without_tokens_can_be_dropped():
    kept = tokens_of([4, 0, 3, 0]).drop_empty()
    assert equal(kept, tokens_of([4, 3])._replace(random_bits=np.array([0, 2], np.uint64)))


def test_a_block_is_read_at_its_offset(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 10)
    path, whole = str(tmp_path / "tokens"), tokens_of([4, 9, 30])
    first, second = token_files.write_blocks(path, [whole.slice(0, 2), whole.slice(2, 3)])
    assert equal(token_files.read_block(path, first.offset), whole.slice(0, 2))
    assert equal(token_files.read_block(path, second.offset), whole.slice(2, 3))


@pytest.mark.parametrize("part_of_second_block", [0.0, 0.02, 0.3, 0.6, 0.999])
def test_a_file_that_is_cut_short_is_a_user_error(tmp_path, monkeypatch, part_of_second_block):
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 10)
    path, whole = tmp_path / "tokens", tokens_of([4, 9, 30])
    first, second = token_files.write_blocks(str(path), [whole.slice(0, 2), whole.slice(2, 3)])
    data = path.read_bytes()
    path.write_bytes(data[: second.offset + int(part_of_second_block * (len(data) - second.offset))])
    assert equal(token_files.read_block(str(path), first.offset), whole.slice(0, 2))
    message = rf"tokens: no whole block of tokens at byte {second.offset:,}; the file is cut short"
    with pytest.raises(UserError, match=message):
        token_files.read_block(str(path), second.offset)
    with pytest.raises(UserError, match=r"no whole block of tokens at byte .*remove it and run the same command again"):
        token_files.read_block(str(path), len(data) + 1000)
    if part_of_second_block:
        with pytest.raises(UserError, match=message):
            list(token_files.read_blocks(str(path)))
