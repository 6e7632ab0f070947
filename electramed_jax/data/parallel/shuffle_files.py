"""Rows that many tasks write and others read, regrouped between them: files of rows sorted by slot.

A task that writes decides the slot of each row (by the hash of its key, by the input it concerns); a
task that reads takes the same slots from all files. So what belongs together meets in one process,
though no process ever holds all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from electramed_jax.common.storage import files

HASH_SLOTS = 256
ROWS_AT_ONCE = 500_000  # held before they are put into a file


class Writer:
    """A stream of rows into files of ROWS_AT_ONCE rows or a little more, the last of fewer.

    Args:
      slots: of rows [n], int64[n] below `number`.

    Attributes:
      files: how many there are; all of them after the block has ended well.
    """

    def __init__(self, prefix: str, slots: Callable[[np.ndarray], np.ndarray], number: int):
        self.files = 0
        self._prefix, self._slots, self._number = prefix, slots, number
        self._waiting: list[np.ndarray] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self._flush()

    def write(self, rows: np.ndarray) -> None:
        """Appends rows of one dtype."""
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            rows, self._waiting = np.concatenate(self._waiting), []
            write(file_path(self._prefix, self.files), rows, self._slots(rows), self._number)
            self.files += 1


def file_path(prefix: str, number: int) -> str:
    """The path of one of a Writer's files."""
    return f"{prefix}-{number:03d}"


def hash_slots(hashes: np.ndarray) -> np.ndarray:
    """The slot, below HASH_SLOTS, of each uint64: its uppermost byte."""
    return (hashes >> np.uint64(56)).astype(np.int64)


def group_by_slot(rows: np.ndarray, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(slot, its rows) for each slot that has some; within a slot rows keep their order."""
    in_order = np.argsort(slots, kind="stable")
    rows, slots = rows[in_order], slots[in_order]
    bounds = np.flatnonzero(np.diff(slots, prepend=-1, append=-1))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield int(slots[first]), rows[first:end]


def write(path: str, rows: np.ndarray, slots: np.ndarray, number: int) -> None:
    """Writes structured rows [n] whose slots [n] are below `number`; within a slot they keep their order."""
    bounds = np.zeros(number + 1, "<i8")
    np.cumsum(np.bincount(slots, minlength=number), out=bounds[1:])
    with files.atomic_write(path) as file:
        file.write(bounds.tobytes())
        file.write(rows[np.argsort(slots, kind="stable")].tobytes())


def read(paths: Iterable[str], dtype: np.dtype, number: int, first: int, end: int) -> np.ndarray:
    """The rows of slots [first, end) of all files, file after file."""
    pieces = [_read_one(path, dtype, number, first, end) for path in paths]
    return np.concatenate([np.empty(0, dtype), *pieces])


def _read_one(path: str, dtype: np.dtype, number: int, first: int, end: int) -> np.ndarray:
    bounds = np.frombuffer(files.read_range(path, 8 * first, 8 * (end - first + 1)), "<i8")
    begin, count = int(bounds[0]), int(bounds[-1] - bounds[0])
    data = files.read_range(path, 8 * (number + 1) + begin * dtype.itemsize, count * dtype.itemsize) if count else b""
    return np.frombuffer(data, dtype)
