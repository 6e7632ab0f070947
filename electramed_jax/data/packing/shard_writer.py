"""A stream of rows into shards, whose names tell a count that is known only at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.common.storage.tfrecord import RowWriter
from electramed_jax.data.dataset.manifest import Shard, shard_name


class ShardWriter:
    """Writes scratch files of `rows_per_shard` rows, the last one shorter; `place` names them.

    Attributes:
      shards: those that are complete; `file` is the path of the scratch file.
    """

    def __init__(self, scratch: str, row_length: int, dtype: str, rows_per_shard: int):
        self.shards: list[Shard] = []
        self._scratch, self._row_length, self._dtype = scratch, row_length, dtype
        self._rows_per_shard = rows_per_shard
        self._stack = contextlib.ExitStack()
        self._writer: RowWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._close(*error)

    def write(self, rows: np.ndarray) -> None:
        """Appends rows [n, T]."""
        while len(rows):
            if self._writer is None:
                path = f"{self._scratch}-{len(self.shards):05d}"
                self._writer = self._stack.enter_context(RowWriter(path, self._row_length, self._dtype))
            room = self._rows_per_shard - self._writer.rows
            self._writer.write(rows[:room])
            rows = rows[room:]
            if self._writer.rows == self._rows_per_shard:
                self._close(None, None, None)

    def _close(self, *error: object) -> None:
        self._stack.__exit__(*error)
        writer, self._writer = self._writer, None
        self.shards.append(Shard(writer.path, writer.rows, writer.sha256))


def place(shards: Sequence[Shard], output_dir: str, name: str, split: str) -> tuple[Shard, ...]:
    """Moves scratch files to where a dataset has them, and names them so."""
    placed = []
    for number, shard in enumerate(shards):
        file = shard_name(name, split, number, len(shards))
        files.move(shard.file, files.join(output_dir, file))
        placed.append(dataclasses.replace(shard, file=file))
    return tuple(placed)
