"""Cache of word -> token ids for whole batches of text: a hash table in arrays, filled as words occur.

BERT's rules split a text at all white space and around every ASCII punctuation mark. The text between two splits
has the same ids at any position, so each distinct word is tokenized only once. About ten thousand words are looked
up together: their hashes come from one running sum over the bytes, their ids from a few gathers.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence

import numpy as np

MAX_WORDS = 1 << 19  # then the cache is cleared; it takes about 25 MB
_SLOT_BITS = 20
_SLICE_BYTES = 1 << 16  # looked up at a time, so that the arrays stay in the processor's cache
_SPACES = b" \t\n\r"
_SPACE, _MARK, _LETTER = range(3)
_KINDS = np.full(256, _LETTER, np.uint8)  # bytes beyond ASCII and control characters count as letters
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
    """Converts texts to ids word by word.

    Two words are taken for the same word if 63 bits of their hashes are equal. Among ten million words the
    probability of that is one in a hundred thousand.

    Args:
      tokenize: words -> the ids of each.
      ignore_case: whether ASCII capitals have the ids of lower-case letters.
    """

    _ids: np.ndarray  # int32, the ids of all words, one word after the other

    def __init__(self, tokenize: Callable[[list[str]], list[list[int]]], ignore_case: bool):
        self._tokenize = tokenize
        capitals = string.ascii_uppercase.encode() if ignore_case else b""
        self._byte_map = bytes.maketrans(_SPACES + capitals, b" " * len(_SPACES) + capitals.lower())
        self._clear()

    def ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text, int32[n]."""
        if not texts:
            return []
        encoded = [text.encode() for text in texts]
        data = b" ".join(encoded).translate(self._byte_map)
        slices = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))]
        slices += [self._slice_ids(data, start, stop) for start, stop in slice_bounds(data)]
        begins, counts, ids = (np.concatenate(arrays) for arrays in zip(*slices, strict=True))
        before = np.concatenate([[0], np.cumsum(counts)])
        starts = np.cumsum([len(text) + 1 for text in encoded])[:-1]
        return np.split(ids, before[np.searchsorted(begins, starts)])

    def _slice_ids(self, data: bytes, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns (first byte, number of ids) of each word of data[start:stop], and the ids of all of them."""
        if stop - start > _SLICE_BYTES:  # one enormous word
            (ids,) = self._tokenize([data[start:stop].decode()])
            return np.array([start]), np.array([len(ids)]), np.array(ids, np.int32)
        if self._num_words > MAX_WORDS:
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
            self._insert(hashes[new], [data[begin:end].decode() for begin, end in bounds])
            slots[missing], _ = self._find(hashes[missing])
        counts = self._counts[slots]
        stops = np.cumsum(counts)
        source = np.repeat(self._firsts[slots] - (stops - counts), counts) + np.arange(counts.sum())
        return start + begins, counts, self._ids[source]

    def _find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the slot of each word, an empty one if it is not in the table, and the indices of those words."""
        slots = (hashes >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
        while True:
            found = self._hashes[slots]
            is_empty = found == 0
            taken = np.flatnonzero((found != hashes) & ~is_empty)
            if not len(taken):
                return slots, np.flatnonzero(is_empty)
            slots[taken] = (slots[taken] + 1) % len(self._hashes)

    def _insert(self, hashes: np.ndarray, words: list[str]) -> None:
        ids = self._tokenize(words)
        counts = np.array([len(word_ids) for word_ids in ids])
        total = int(counts.sum())
        if self._num_ids + total > len(self._ids):
            self._ids = np.concatenate([self._ids, np.empty(max(total, len(self._ids)), np.int32)])
        self._ids[self._num_ids : self._num_ids + total] = [number for word_ids in ids for number in word_ids]
        firsts = self._num_ids + np.cumsum(counts) - counts
        self._num_ids += total
        self._num_words += len(words)
        left = np.arange(len(words))
        while len(left):  # the first of the words with the same slot gets it
            slots, winners = np.unique(self._find(hashes[left])[0], return_index=True)
            placed = left[winners]
            self._hashes[slots], self._firsts[slots], self._counts[slots] = (
                hashes[placed],
                firsts[placed],
                counts[placed],
            )
            left = np.delete(left, winners)

    def _clear(self) -> None:
        self._num_words = self._num_ids = 0
        self._hashes = np.zeros(1 << _SLOT_BITS, np.uint64)
        self._firsts = np.zeros(1 << _SLOT_BITS, np.int32)
        self._counts = np.zeros(1 << _SLOT_BITS, np.int32)
        self._ids = np.empty(0, np.int32)


def slice_bounds(data: bytes) -> Iterator[tuple[int, int]]:
    """Yields (start, stop) of slices of at most _SLICE_BYTES that end at a space; a longer one is a single word."""
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
    """Returns the first byte of each word and the byte after its last."""
    kinds = _KINDS[letters]
    begins = kinds != _SPACE
    ends = begins.copy()
    is_boundary = (kinds[1:] != _LETTER) | (kinds[:-1] != _LETTER)
    begins[1:] &= is_boundary
    ends[:-1] &= is_boundary
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1
