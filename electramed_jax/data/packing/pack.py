"""Token lists into full rows: pure, deterministic, vectorised.

A document becomes one or more pieces `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`. One longer than a
row is cut, and what is left over is a piece of its own: every token of every document stands in
exactly one row. Pieces are put into rows by best fit, the longest first; then those of the emptiest
rows are cut once more to fill the holes that are left. Sentence ends are judged by ids alone: a
".", "?" or "!" token that is not followed by a digit (so "0.05" is not two sentences, though
"e.g. this" is).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds

MIN_PIECE = 8  # content tokens of the shortest piece, unless the document is shorter
MIN_HOLE = 64  # room that is worth cutting one more document for
MIN_ROW_LENGTH = 32


@dataclasses.dataclass(frozen=True)
class SentenceEnds:
    """Which ids end a sentence, and which may not follow such an end; both bool[V]."""

    ends: np.ndarray
    digits: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[str]) -> SentenceEnds:
        """From the vocabulary's tokens, by id."""
        ends = np.array([token in (".", "?", "!") for token in tokens])
        digits = np.array([token[:1].isdigit() for token in tokens])
        return cls(ends, digits)

    def breaks(self, ids: np.ndarray) -> np.ndarray:
        """Sorted positions p such that a sentence ends just before ids[p]."""
        return np.flatnonzero(self.ends[ids[:-1]] & ~self.digits[ids[1:]]) + 1


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """Rows and what went into them.

    Attributes:
      rows: int32[n, T].
      tokens: ids that are not [PAD].
      split_documents: documents that are more than one piece.
      dropped_tokens: those of the documents that are in no row; none, where rows are packed.
    """

    rows: np.ndarray
    tokens: int
    split_documents: int
    dropped_tokens: int = 0


def check_row_length(row_length: int) -> None:
    """Raises UserError for rows too short to hold a sentence pair."""
    if row_length < MIN_ROW_LENGTH:
        raise UserError(f"max_seq_length={row_length}; wanted at least {MIN_ROW_LENGTH}; 128 and 512 are the usual ones")


def pack_documents(
    ids: np.ndarray,
    lengths: np.ndarray,
    paired: np.ndarray,
    row_length: int,
    special: SpecialIds,
    sentence_ends: SentenceEnds,
) -> PackedRows:
    """Packs documents into rows.

    Args:
      ids: int[sum(lengths)], the documents one after the other, without special tokens.
      lengths: int[D], tokens of each document, each at least 1.
      paired: bool[D], whether the document's pieces are split into A and B at the sentence end
        nearest to their middle (a piece with no sentence end inside stays A alone).
      row_length: T, at least 32.

    Returns:
      Rows in the order of the first document in each; within a row, documents in order.
    """
    assert len(ids) == lengths.sum() and (lengths > 0).all() and row_length >= MIN_ROW_LENGTH
    if not len(lengths):
        return PackedRows(np.empty((0, row_length), np.int32), 0, 0)
    document, start, stop = _cut(lengths, row_length - 2 - paired.astype(np.int64))
    # With a sentinel on either side, outside every piece.
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
    row, place = _arrange(row, size)

    rows = np.full((row.max() + 1, row_length), special.pad, np.int32)
    flat = rows.reshape(-1)
    first = row * row_length + place
    # Pieces cover the documents in order, so ids themselves are the source: A moves by one number, B by another.
    segments = np.stack([split - start, stop - split], 1).reshape(-1)
    moves = np.stack([first + 1 - start, first + 2 - start], 1).reshape(-1)
    flat[np.arange(len(ids)) + np.repeat(moves, segments)] = ids
    flat[first] = special.cls
    flat[(first + 1 + split - start)[has_b]] = special.sep
    flat[first + size - 1] = special.sep
    pieces = np.bincount(document, minlength=len(lengths))
    return PackedRows(rows, int(size.sum()), int((pieces > 1).sum()))


def _cut(lengths: np.ndarray, room: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cuts each document into pieces of at most `room` tokens: (document, start, stop) of each."""
    count = -(-lengths // room)
    document = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    last = number == count[document] - 1
    # A last piece that is too short takes tokens from the one before it.
    final = np.maximum(lengths - (count - 1) * room, np.where(count > 1, MIN_PIECE, 0))
    offset = np.cumsum(lengths) - lengths
    begin = np.where(last, (lengths - final)[document], number * room[document])
    start = offset[document] + begin
    stop = np.append(start[1:], lengths.sum())
    return document, start, stop


def _split_points(breaks: np.ndarray, start: np.ndarray, stop: np.ndarray, paired: np.ndarray) -> np.ndarray:
    """Where B begins in each piece, nearest to its middle among the sorted `breaks`; `stop` where there is no B."""
    middle = (start + stop + 1) // 2
    after = np.searchsorted(breaks, middle)
    right, left = breaks[after], breaks[after - 1]
    left_good, right_good = left > start, right < stop
    take_left = left_good & (~right_good | (middle - left <= right - middle))
    split = np.where(take_left, left, right)
    return np.where(paired & (left_good | right_good), split, stop)


def _best_fit(size: np.ndarray, row_length: int) -> np.ndarray:
    """The row of each piece: longest first, each into the fullest row that still has room."""
    row = np.empty(len(size), np.int64)
    full = size == row_length
    rows = int(full.sum())
    row[full] = np.arange(rows)
    open_rows: list[list[int]] = [[] for _ in range(row_length + 1)]  # by room left
    rooms = 0  # bit r is set where open_rows[r] holds a row
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
    """Dissolves the emptiest rows into the holes of the others, the smallest hole first.

    Args:
      spare: special tokens a piece may need, whether or not it will have a B.

    Returns:
      (index of the piece it is cut from, start, stop, row) of every piece, by start.
    """
    room = row_length - np.bincount(row, size).astype(np.int64)
    holes = np.flatnonzero(room >= MIN_HOLE)
    holes = holes[np.argsort(-room[holes], kind="stable")].tolist()
    by_row = np.argsort(row, kind="stable")
    first = np.searchsorted(row[by_row], np.arange(len(room) + 1))
    moved: list[tuple[int, int, int, int]] = []
    giver, taker = 0, len(holes) - 1
    while giver < taker:
        for piece in by_row[first[holes[giver]] : first[holes[giver] + 1]].tolist():
            begin, end, special = int(start[piece]), int(stop[piece]), int(spare[piece])
            while begin < end:
                while taker > giver and room[holes[taker]] < MIN_HOLE:
                    taker -= 1
                if taker == giver:
                    length = end - begin  # no hole is left: the rest stays where it is
                else:
                    length = min(end - begin, int(room[holes[taker]]) - special)
                    if 0 < end - begin - length < MIN_PIECE:
                        length = end - begin - MIN_PIECE
                moved.append((piece, begin, begin + length, holes[taker]))
                room[holes[taker]] -= length + special
                begin += length
        giver += 1
    if not moved:
        return np.arange(len(row)), start, stop, row
    kept = np.ones(len(row), bool)
    cut = np.array(moved, np.int64)
    kept[cut[:, 0]] = False
    whole = np.flatnonzero(kept)
    pieces = np.concatenate([np.stack([whole, start[whole], stop[whole], row[whole]], 1), cut])
    pieces = pieces[np.argsort(pieces[:, 1])]
    _, pieces[:, 3] = np.unique(pieces[:, 3], return_inverse=True)
    return tuple(pieces.T)


def _arrange(row: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers rows by their first piece; gives each piece its row and its place in it."""
    order = np.argsort(row, kind="stable")  # by row, then by piece
    begins = np.flatnonzero(np.diff(row[order], prepend=-1))
    rank = np.empty(len(begins), np.int64)
    rank[np.argsort(order[begins])] = np.arange(len(begins))
    ends = np.cumsum(size[order])
    per_row = np.diff(np.append(begins, len(order)))
    base = np.repeat(ends[begins] - size[order][begins], per_row)
    place = np.empty(len(row), np.int64)
    place[order] = ends - size[order] - base
    return rank[row], place
