"""Word -> token ids for whole batches of text at once: a hash table in arrays, filled as words are met.

BERT's rules cut a text at every white space and around every punctuation mark of ASCII, and what
stands between two cuts gives the same ids wherever it stands: each such word needs to be tokenised
only once. Some ten thousand words are looked up together: their hashes come from one running sum
over the bytes, their ids from a few gathers.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np

MAX_WORDS = 1 << 19  # then they are learnt anew; the table takes some 25 MB
_SLOT_BITS = 20
_SLICE_BYTES = 1 << 16  # looked up at a time, so that the arrays stay in the processor's cache
_SPACES = b" \t\n\r"
_SPACE, _MARK, _LETTER = range(3)
_KINDS = np.full(256, _LETTER, np.uint8)  # with all bytes beyond ASCII, and controls
_KINDS[list(_SPACES)] = _SPACE
_KINDS[list(string.punctuation.encode())] = _MARK
_BASE = 0x9E3779B97F4A7C15  # odd: it has an inverse modulo 2**64
_SPREAD = np.uint64(0xD6E8FEB86659FD93)


def _powers(base: int) -> np.ndarray:
    factors = np.full(_SLICE_BYTES, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


_POWERS, _INVERSES = _powers(_BASE), _powers(pow(_BASE, -1, 1 << 64))


class WordCache:
    """The ids of texts, looked up word by word.

    Two words are taken for one where 63 bits of their hashes are equal, which among ten million words
    has a chance of one in a hundred thousand.

    Args:
      tokenize: words -> the ids of each.
      ignore_case: whether ASCII capitals have the ids of small letters.
    """

    def __init__(self, tokenize: Callable[[list[str]], list[list[int]]], ignore_case: bool):
        self._tokenize = tokenize
        capitals = string.ascii_uppercase.encode() if ignore_case else b""
        self._plain = bytes.maketrans(_SPACES + capitals, b" " * len(_SPACES) + capitals.lower())
        self._clear()

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, int32[n]."""
        if not texts:
            return []
        encoded = [text.encode() for text in texts]
        data = b" ".join(encoded).translate(self._plain)
        found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))]
        found += [self._slice(data, start, stop) for start, stop in _slices(data)]
        begins, counts, ids = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
        before = np.concatenate([[0], np.cumsum(counts)])
        starts = np.cumsum([len(text) + 1 for text in encoded])[:-1]
        return np.split(ids, before[np.searchsorted(begins, starts)])

    def _slice(self, data: bytes, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(first byte, number of ids) of each word of data[start:stop], and all their ids."""
        if stop - start > _SLICE_BYTES:  # one enormous word
            (ids,) = self._tokenize([data[start:stop].decode()])
            return np.array([start]), np.array([len(ids)]), np.array(ids, np.int32)
        if self._known > MAX_WORDS:
            self._clear()
        letters = np.frombuffer(data, np.uint8, stop - start, start)
        begins, ends = _words(letters)
        sums = np.zeros(len(letters) + 1, np.uint64)
        np.cumsum((letters + np.uint64(1)) * _POWERS[: len(letters)], out=sums[1:])
        hashes = (sums[ends] - sums[begins]) * _INVERSES[begins] * _SPREAD | np.uint64(1)  # 0 is an empty slot
        slots, missing = self._find(hashes)
        if len(missing):
            new = missing[np.unique(hashes[missing], return_index=True)[1]]
            bounds = zip((start + begins[new]).tolist(), (start + ends[new]).tolist(), strict=True)
            self._learn(hashes[new], [data[begin:end].decode() for begin, end in bounds])
            slots[missing], _ = self._find(hashes[missing])
        counts = self._counts[slots]
        stops = np.cumsum(counts)
        places = np.repeat(self._firsts[slots] - (stops - counts), counts) + np.arange(counts.sum())
        return start + begins, counts, self._ids[places]

    def _find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot of each word, or an empty one where it would be; the indices of the words of which that is so."""
        slots = (hashes >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        while True:
            there = self._hashes[slots]
            is_new = there == 0
            taken = np.flatnonzero((there != hashes) & ~is_new)
            if not len(taken):
                return slots, np.flatnonzero(is_new)
            slots[taken] = (slots[taken] + 1) % len(self._hashes)

    def _learn(self, hashes: np.ndarray, words: list[str]) -> None:
        ids = self._tokenize(words)
        counts = np.array([len(of_word) for of_word in ids])
        total = int(counts.sum())
        if self._used + total > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty(max(total, len(self._ids)), np.int32)])
        self._ids[self._used : self._used + total] = [number for of_word in ids for number in of_word]
        firsts = self._used + np.cumsum(counts) - counts
        self._used += total
        self._known += len(words)
        left = np.arange(len(words))
        while len(left):  # of those that want the same slot, the first gets it
            slots, winners = np.unique(self._find(hashes[left])[0], return_index=True)
            placed = left[winners]
            self._hashes[slots], self._firsts[slots], self._counts[slots] = (
                hashes[placed],
                firsts[placed],
                counts[placed],
            )
            left = np.delete(left, winners)

    def _clear(self) -> None:
        self._known = self._used = 0
        self._hashes = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._firsts = np.zeros(1 << _SLOT_BITS, np.int32)
        self._counts = np.zeros(1 << _SLOT_BITS, np.int32)
        self._ids = np.empty(0, np.int32)


def _slices(data: bytes) -> Iterator[tuple[int, int]]:
    """Pieces of at most _SLICE_BYTES that end at a space; a longer one is one word."""
    start = 0
    while start < len(data):
        stop = len(data)
        if stop - start > _SLICE_BYTES:
            stop = data.rfind(b" ", start, start + _SLICE_BYTES)
            if stop < 0:
                stop = data.find(b" ", start + _SLICE_BYTES)
            if stop < 0:
                stop = len(data)
        yield start, stop
        start = stop + 1


def _words(letters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where words begin and end."""
    kinds = _KINDS[letters]
    begins = kinds != _SPACE
    ends = begins.copy()
    apart = (kinds[1:] != _LETTER) | (kinds[:-1] != _LETTER)
    begins[1:] &= apart
    ends[:-1] &= apart
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1
