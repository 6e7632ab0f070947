"""Files of rows sorted by slot: the shuffle between tasks that write rows and tasks that read them.

The writer chooses the slot of each row, by the hash of its key or by its input. A reader takes the same range of
slots from all files. So rows of one key are together in one process, and no process ever has all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import numpy as np

from electramed_jax.common.storage import files

HASH_SLOTS = 256
ROWS_AT_ONCE = 500_000  # rows in memory before a file is written


class Writer:
    """Writes a stream of rows to files of at least ROWS_AT_ONCE rows, the last one shorter.

    Args:
      prefix: of the paths (see `file_path`).
      slots: rows [n] -> their slots, int64[n] below `num_slots`.

    Attributes:
      files: number of files written; complete once the `with` block has ended without an error.
    """

    def __init__(self, prefix: str, slots: Callable[[np.ndarray], np.ndarray], num_slots: int):
        self.files = 0
        self._prefix, self._slots, self._num_slots = prefix, slots, num_slots
        self._pending: list[np.ndarray] = []

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()

    def write(self, rows: np.ndarray) -> None:
        """Appends rows; all calls take the same dtype."""
        self._pending.append(rows)
        if sum(map(len, self._pending)) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            rows, self._pending = np.concatenate(self._pending), []
            write(file_path(self._prefix, self.files), rows, self._slots(rows), self._num_slots)
            self.files += 1


def file_path(prefix: str, number: int) -> str:
    """Returns the path of file `number` of a Writer."""
    return f"{prefix}-{number:03d}"


def hash_slots(hashes: np.ndarray) -> np.ndarray:
    """Returns the slot of each hash, its most significant byte: uint64[n] -> int64[n] below HASH_SLOTS."""
    return (hashes >> np.uint64(56)).astype(np.int64)


def group_by_slot(rows: np.ndarray, slots: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (slot, its rows in their order) for each slot that has rows."""
    in_order = np.argsort(slots, kind="stable")
    rows, slots = rows[in_order], slots[in_order]
    bounds = np.flatnonzero(np.diff(slots, prepend=-1, append=-1))
    for first, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield int(slots[first]), rows[first:end]


def write(path: str, rows: np.ndarray, slots: np.ndarray, num_slots: int) -> None:
    """Writes a file of structured rows [n] with slots [n] below `num_slots`; rows of a slot keep their order."""
    bounds = np.zeros(num_slots + 1, "<i8")
    np.cumsum(np.bincount(slots, minlength=num_slots), out=bounds[1:])
    with files.atomic_write(path) as file:
        file.write(bounds.tobytes())
        file.write(rows[np.argsort(slots, kind="stable")].tobytes())


def read(paths: Iterable[str], dtype: np.dtype, num_slots: int, first: int, end: int) -> np.ndarray:
    """Reads the rows of the slots [first, end) of all files, file after file."""
    pieces = [_read_file(path, dtype, num_slots, first, end) for path in paths]
    return np.concatenate([np.empty(0, dtype), *pieces])


def _read_file(path: str, dtype: np.dtype, num_slots: int, first: int, end: int) -> np.ndarray:
    bounds = np.frombuffer(files.read_range(path, 8 * first, 8 * (end - first + 1)), "<i8")
    begin, count = int(bounds[0]), int(bounds[-1] - bounds[0])
    offset = 8 * (num_slots + 1) + begin * dtype.itemsize
    data = files.read_range(path, offset, count * dtype.itemsize) if count else b""
    return np.frombuffer(data, dtype)
