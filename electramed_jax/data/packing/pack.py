"""Packs documents into full rows. The functions are pure, deterministic and vectorized.

A document becomes one or more pieces `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`. A document longer than a
row is cut and its remainder is another piece: every token of every document is in exactly one row.
Pieces are assigned to rows by best fit, the longest first. Then the pieces of the emptiest rows are cut
again to fill the holes that are left. Sentence ends are found from ids alone: a ".", "?" or "!" token
that is not followed by a digit (so "0.05" is not two sentences, though "e.g. this" is).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds

MIN_PIECE = 8  # tokens of the shortest piece without special tokens, unless the document is shorter
MIN_HOLE = 64  # free positions of a row for which another document is cut
MIN_ROW_LENGTH = 32


@dataclasses.dataclass(frozen=True)
class SentenceEnds:
    """Finds sentence ends in token ids.

    Attributes:
      ends: bool[V], whether an id ends a sentence.
      digits: bool[V], whether an id begins with a digit; no sentence ends before such an id.
    """

    ends: np.ndarray
    digits: np.ndarray

    @classmethod
    def from_vocab(cls, tokens: Sequence[str]) -> SentenceEnds:
        """Builds the tables from the tokens of the vocabulary, by id."""
        ends = np.array([token in (".", "?", "!") for token in tokens])
        digits = np.array([token[:1].isdigit() for token in tokens])
        return cls(ends, digits)

    def breaks(self, ids: np.ndarray) -> np.ndarray:
        """Returns the sorted positions p such that a sentence ends just before ids[p], int64[n]."""
        return np.flatnonzero(self.ends[ids[:-1]] & ~self.digits[ids[1:]]) + 1


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows and their statistics.

    Attributes:
      rows: int32[n, T].
      tokens: ids that are not [PAD].
      split_documents: documents that are more than one piece.
      dropped_tokens: tokens of the documents that are in no row; 0 in the packed format.
    """

    rows: np.ndarray
    tokens: int
    split_documents: int
    dropped_tokens: int = 0


def check_row_length(row_length: int) -> None:
    """Raises UserError if rows are too short for a sentence pair."""
    if row_length < MIN_ROW_LENGTH:
        raise UserError(f"max_seq_length={row_length}; wanted at least {MIN_ROW_LENGTH}; use 128 or 512")


def pack_documents(
    ids: np.ndarray,
    lengths: np.ndarray,
    paired: np.ndarray,
    row_length: int,
    special: SpecialIds,
    sentence_ends: SentenceEnds,
) -> PackedRows:
    """Returns rows in the order of the first document in each; within a row, documents are in order.

    Args:
      ids: int[sum(lengths)], the documents one after the other, without special tokens.
      lengths: int[D], tokens of each document, each at least 1.
      paired: bool[D], whether the pieces of a document are split into A and B at the sentence end
        nearest to their middle (a piece with no sentence end inside has no B).
      row_length: T, at least 32.
    """
    assert len(ids) == lengths.sum() and (lengths > 0).all() and row_length >= MIN_ROW_LENGTH
    if not len(lengths):
        return PackedRows(np.empty((0, row_length), np.int32), 0, 0)
    document, start, stop = _cut(lengths, row_length - 2 - paired.astype(np.int64))
    # One sentinel on each side, outside every piece.
    breaks = np.concatenate([[-1], sentence_ends.breaks(ids), [len(ids) + 1]])
    split = _split_points(breaks, start, stop, paired[document])
    size = stop - start + 2 + (split < stop)
    row = _best_fit(size, row_length)
    spare = 2 + paired[document]
    source, start, stop, row = _fill_holes(start, stop, spare, size, row, row_length)
    document = document[source]
    split = _split_points(breaks, start, stop, paired[document])
    has_b = split < stop
    size = stop - start + 2 + has_b
    row, column = _arrange(row, size)

    rows = np.full((row.max() + 1, row_length), special.pad, np.int32)
    flat = rows.reshape(-1)
    first = row * row_length + column
    # Pieces cover the documents in order, so `ids` is copied with one shift for each A and one for each B.
    segments = np.stack([split - start, stop - split], 1).reshape(-1)
    shifts = np.stack([first + 1 - start, first + 2 - start], 1).reshape(-1)
    flat[np.arange(len(ids)) + np.repeat(shifts, segments)] = ids
    flat[first] = special.cls
    flat[(first + 1 + split - start)[has_b]] = special.sep
    flat[first + size - 1] = special.sep
    pieces = np.bincount(document, minlength=len(lengths))
    return PackedRows(rows, int(size.sum()), int((pieces > 1).sum()))


def _cut(lengths: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts each document into pieces of at most `room` tokens; returns (document, start, stop) of the pieces."""
    count = -(-lengths // room)
    document = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    last = number == count[document] - 1
    # A last piece that is too short takes tokens from the previous piece.
    final = np.maximum(lengths - (count - 1) * room, np.where(count > 1, MIN_PIECE, 0))
    offset = np.cumsum(lengths) - lengths
    begin = np.where(last, (lengths - final)[document], number * room[document])
    start = offset[document] + begin
    stop = np.append(start[1:], lengths.sum())
    return document, start, stop


def _split_points(breaks: np.ndarray, start: np.ndarray, stop: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """Returns where B begins in each piece: the sorted break nearest to its middle, or `stop` if it has no B."""
    middle = (start + stop + 1) // 2
    after = np.searchsorted(breaks, middle)
    right, left = breaks[after], breaks[after - 1]
    left_valid, right_valid = left > start, right < stop
    take_left = left_valid & (~right_valid | (middle - left <= right - middle))
    split = np.where(take_left, left, right)
    return np.where(paired & (left_valid | right_valid), split, stop)


def _best_fit(size: np.ndarray, row_length: int) -> np.ndarray:
    """Returns the row of each piece: longest first, each into the fullest row with enough room, int64[n]."""
    row = np.empty(len(size), np.int64)
    full = size == row_length
    rows = int(full.sum())
    row[full] = np.arange(rows)
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]  # by free positions
    rooms = 0  # bit r is set where open_rows[r] is not empty
    rest = np.flatnonzero(~full)
    order = rest[np.argsort(-size[rest], kind="stable")]
    for piece, length in zip(order.tolist(), size[order].tolist(), strict=True):
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            at = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
        else:
            room, at = row_length, rows
            rows += 1
        row[piece] = at
        left = room - length
        if left:
            open_rows[left].append(at)
            rooms |= 1 << left
    return row


def _fill_holes(
    start: np.ndarray,
    stop: np.ndarray,
    spare: np.ndarray,
    size: np.ndarray,
    row: np.ndarray,
    row_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Moves the pieces of the emptiest rows into the holes of the other rows, the smallest hole first.

    Args:
      spare: special tokens a piece may need, whether or not it will have a B.

    Returns:
      (index of the original piece, start, stop, row) of every piece, sorted by start.
    """
    room = row_length - np.bincount(row, size).astype(np.int64)
    holes = np.flatnonzero(room >= MIN_HOLE)
    holes = holes[np.argsort(-room[holes], kind="stable")].tolist()
    by_row = np.argsort(row, kind="stable")
    first = np.searchsorted(row[by_row], np.arange(len(room) + 1))
    moved: list[tuple[int, int, int, int]] = []
    source, target = 0, len(holes) - 1  # rows are emptied from the front of `holes` and filled from its back
    while source < target:
        for piece in by_row[first[holes[source]] : first[holes[source] + 1]].tolist():
            begin, end, special = int(start[piece]), int(stop[piece]), int(spare[piece])
            while begin < end:
                while target > source and room[holes[target]] < MIN_HOLE:
                    target -= 1
                if target == source:
                    length = end - begin  # no hole is left: the remainder stays in its row
                else:
                    length = min(end - begin, int(room[holes[target]]) - special)
                    if 0 < end - begin - length < MIN_PIECE:
                        length = end - begin - MIN_PIECE
                moved.append((piece, begin, begin + length, holes[target]))
                room[holes[target]] -= length + special
                begin += length
        source += 1
    if not moved:
        return np.arange(len(row)), start, stop, row
    kept = np.ones(len(row), bool)
    cut = np.array(moved, np.int64)
    kept[cut[:, 0]] = False
    whole = np.flatnonzero(kept)
    pieces = np.concatenate([np.stack([whole, start[whole], stop[whole], row[whole]], 1), cut])
    pieces = pieces[np.argsort(pieces[:, 1])]
    _, pieces[:, 3] = np.unique(pieces[:, 3], return_inverse=True)
    piece, start, stop, row = pieces.T
    return piece, start, stop, row


def _arrange(row: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers rows by their first piece; returns the row of each piece and the column at which it begins."""
    order = np.argsort(row, kind="stable")  # by row, then by piece
    begins = np.flatnonzero(np.diff(row[order], prepend=-1))
    rank = np.empty(len(begins), np.int64)
    rank[np.argsort(order[begins])] = np.arange(len(begins))
    ends = np.cumsum(size[order])
    per_row = np.diff(np.append(begins, len(order)))
    base = np.repeat(ends[begins] - size[order][begins], per_row)
    column = np.empty(len(row), np.int64)
    column[order] = ends - size[order] - base
    return rank[row], column
