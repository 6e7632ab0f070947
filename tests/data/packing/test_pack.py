"""Packing of documents into rows: no token is lost, rows are full, pairs are split at sentence ends."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.packing.pack import MIN_PIECE, PackedRows, SentenceEnds, check_row_length, pack_documents

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
STOP, DIGIT, FIRST_WORD, VOCAB = 5, 6, 7, 40_000
ENDS = SentenceEnds(np.arange(VOCAB) == STOP, np.arange(VOCAB) == DIGIT)


def corpus(seed: int, count: int, longest: int) -> list[np.ndarray]:
    """Returns documents of random words with a sentence end about every 12 tokens."""
    rng = np.random.Generator(np.random.Philox(seed))
    lengths = rng.integers(1, longest, count)
    documents = [rng.integers(FIRST_WORD, VOCAB, n) for n in lengths]
    for document in documents:
        document[rng.random(len(document)) < 0.08] = STOP
    return documents


def pack_all(documents: list[np.ndarray], row_length: int, paired=True) -> PackedRows:
    lengths = np.array([len(document) for document in documents])
    return pack_documents(
        np.concatenate(documents) if documents else np.empty(0, np.int64),
        lengths,
        np.broadcast_to(np.asarray(paired), lengths.shape),
        row_length,
        SPECIAL,
        ENDS,
    )


def pieces_of(packed: PackedRows) -> list[list[np.ndarray]]:
    """Checks the form of the rows; returns the pieces of all rows, each a list of its segments (A, or A and B)."""
    pieces = []
    for row in packed.rows:
        length = int((row != SPECIAL.pad).sum())
        assert (row[length:] == SPECIAL.pad).all() and row[0] == SPECIAL.cls
        for piece in np.split(row[:length], np.flatnonzero(row[:length] == SPECIAL.cls))[1:]:
            assert piece[-1] == SPECIAL.sep
            segments = np.split(piece[1:-1], np.flatnonzero(piece[1:-1] == SPECIAL.sep))
            segments = [segments[0], *(segment[1:] for segment in segments[1:])]
            assert len(segments) in (1, 2) and all(len(segment) for segment in segments)
            pieces.append(segments)
    return pieces


@pytest.mark.parametrize("row_length", [32, 128, 512])
@pytest.mark.parametrize("longest", [20, 400, 3000])
def test_every_token_of_every_document_is_in_exactly_one_row(row_length, longest):
    documents = corpus(seed=row_length, count=60, longest=longest)
    # Ids are unique and ascending, so that pieces can be joined to documents again.
    tagged, at = [], FIRST_WORD
    for document in documents:
        tagged.append(np.arange(at, at + len(document)))
        at += len(document)
    ends = SentenceEnds(np.arange(at) % 13 == 0, np.zeros(at, bool))
    ids = np.concatenate(tagged)
    lengths = np.array([len(document) for document in tagged])
    packed = pack_documents(ids, lengths, np.ones(len(lengths), bool), row_length, SPECIAL, ends)
    pieces = [np.concatenate(segments) for segments in pieces_of(packed)]
    pieces.sort(key=lambda piece: piece[0])
    np.testing.assert_array_equal(np.concatenate(pieces), ids)
    starts = np.cumsum(lengths) - lengths + FIRST_WORD
    for piece in pieces:  # no piece holds tokens of two documents
        assert np.searchsorted(starts, piece[0], "right") == np.searchsorted(starts, piece[-1], "right")


@pytest.mark.parametrize("row_length", [32, 128, 512])
def test_the_counts_are_those_of_the_rows(row_length):
    documents = corpus(seed=3, count=80, longest=2 * row_length)
    for number, document in enumerate(documents):
        document[:] = FIRST_WORD + number
    packed = pack_all(documents, row_length)
    assert packed.rows.shape[1] == row_length
    assert packed.tokens == (packed.rows != SPECIAL.pad).sum()
    pieces = Counter(int(segments[0][0]) for segments in pieces_of(packed))
    assert packed.split_documents == sum(count > 1 for count in pieces.values())
    assert 0 < packed.split_documents < len(documents)


@pytest.mark.parametrize("row_length", [32, 128])
def test_no_piece_is_shorter_than_eight_tokens_unless_its_document_is(row_length):
    for length in range(1, 4 * row_length):
        packed = pack_all([np.full(length, FIRST_WORD)], row_length)
        sizes = [sum(map(len, segments)) for segments in pieces_of(packed)]
        assert sum(sizes) == length
        assert min(sizes) >= min(length, MIN_PIECE)


def test_no_short_piece_is_cut_off_to_fill_a_hole():
    lengths = np.random.Generator(np.random.Philox(4)).integers(255, 400, 1000)
    packed = pack_all([np.full(length, FIRST_WORD) for length in lengths], 512)
    sizes = [sum(map(len, segments)) for segments in pieces_of(packed)]
    assert packed.split_documents > 50
    assert sum(sizes) == lengths.sum()
    assert min(sizes) >= MIN_PIECE


def test_a_pair_is_split_at_the_sentence_end_nearest_the_middle():
    document = np.full(40, FIRST_WORD)
    document[[3, 17, 30, 39]] = STOP
    ((a, b),) = pieces_of(pack_all([document], 64))
    assert (len(a), len(b)) == (18, 22)


def test_a_full_stop_before_a_digit_is_a_decimal_point():
    document = np.full(40, FIRST_WORD)
    document[[3, 19]] = STOP
    document[20] = DIGIT
    ((a, b),) = pieces_of(pack_all([document], 64))
    assert (len(a), len(b)) == (4, 36)


def test_a_document_without_an_inner_sentence_end_or_not_paired_has_no_b():
    plain = np.full(30, FIRST_WORD)
    plain[-1] = STOP
    ended = np.full(30, FIRST_WORD)
    ended[10] = STOP
    for documents, paired in (([plain], True), ([ended], False)):
        ((only,),) = pieces_of(pack_all(documents, 64, paired))
        assert len(only) == 30


def test_sentence_ends_are_found_in_a_vocabulary():
    ends = SentenceEnds.from_vocab(["[PAD]", "word", ".", "?", "!", "5", "##5", "..."])
    assert np.flatnonzero(ends.ends).tolist() == [2, 3, 4]
    assert np.flatnonzero(ends.digits).tolist() == [5]
    ids = np.array([2, 1, 2, 5, 3, 1, 4])
    assert ends.breaks(ids).tolist() == [1, 5]


@pytest.mark.parametrize(("row_length", "at_least"), [(128, 0.97), (512, 0.97)])
def test_rows_of_abstracts_are_nearly_full(row_length, at_least):
    rng = np.random.Generator(np.random.Philox(0))
    # Lengths of real abstracts: mean 270, standard deviation 110. They leave large holes in rows of 512.
    lengths = np.clip(rng.normal(270, 110, 2000), 20, 900).astype(int)
    packed = pack_all([np.full(n, FIRST_WORD) for n in lengths], row_length)
    assert packed.tokens / packed.rows.size >= at_least


def test_rows_follow_the_order_of_the_documents_and_so_do_the_documents_in_a_row():
    lengths = np.random.Generator(np.random.Philox(2)).integers(5, 120, 200)
    documents = [np.full(length, FIRST_WORD + n) for n, length in enumerate(lengths)]
    packed = pack_all(documents, 128)
    in_rows = [row[np.flatnonzero(row == SPECIAL.cls) + 1].tolist() for row in packed.rows]
    assert max(map(len, in_rows)) > 2
    assert all(row == sorted(row) for row in in_rows)
    first = [row[0] for row in in_rows]
    assert first == sorted(first)


def test_packing_is_deterministic():
    documents = corpus(seed=9, count=200, longest=300)
    np.testing.assert_array_equal(pack_all(documents, 128).rows, pack_all(documents, 128).rows)


def test_no_documents_give_no_rows():
    packed = pack_all([], 128)
    assert packed.rows.shape == (0, 128) and packed.tokens == 0


def test_long_documents_are_packed_without_a_loop_over_their_tokens():
    documents = corpus(seed=1, count=30, longest=60_000)
    tokens = sum(map(len, documents))
    begun = time.process_time()
    pack_all(documents, 128)
    assert tokens > 500_000
    assert tokens / (time.process_time() - begun) > 1_000_000  # one core reaches about ten times that


def test_rows_too_short_for_sentence_pairs_are_a_user_error():
    check_row_length(32)
    with pytest.raises(UserError, match="max_seq_length=16; wanted at least 32"):
        check_row_length(16)
