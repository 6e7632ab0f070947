"""Writes a stream of rows to shards. Their final names hold the number of shards, so they are renamed at the end."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.common.storage.tfrecord import RowWriter
from electramed_jax.data.dataset.manifest import Shard, shard_name


class ShardWriter:
    """Writes scratch files of `rows_per_shard` rows, the last one shorter. `place_shards` gives them their final names.

    Attributes:
      shards: the complete ones. `file` is the path of the scratch file.
    """

    def __init__(self, scratch_prefix: str, row_length: int, dtype: str, rows_per_shard: int):
        self.shards: list[Shard] = []
        self._scratch_prefix, self._row_length, self._dtype = scratch_prefix, row_length, dtype
        self._rows_per_shard = rows_per_shard
        self._stack = contextlib.ExitStack()
        self._writer: RowWriter | None = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._stack.__exit__(kind, error, traceback)
            self._add_shard(self._writer)

    def write(self, rows: np.ndarray) -> None:
        """Appends rows [n, T]."""
        while len(rows):
            if self._writer is None:
                path = f"{self._scratch_prefix}-{len(self.shards):05d}"
                self._writer = self._stack.enter_context(RowWriter(path, self._row_length, self._dtype))
            room = self._rows_per_shard - self._writer.rows
            self._writer.write(rows[:room])
            rows = rows[room:]
            if self._writer.rows == self._rows_per_shard:
                self._stack.close()
                self._add_shard(self._writer)

    def _add_shard(self, writer: RowWriter) -> None:
        self._writer = None
        self.shards.append(Shard(writer.path, writer.rows, writer.sha256, writer.ends_sha256))


def place_shards(shards: Sequence[Shard], output_dir: str, name: str, split: str) -> tuple[Shard, ...]:
    """Moves the scratch files to their final names in `output_dir`; returns the shards with these names."""
    placed = []
    for number, shard in enumerate(shards):
        file = shard_name(name, split, number, len(shards))
        files.move(shard.file, files.join(output_dir, file))
        placed.append(dataclasses.replace(shard, file=file))
    return tuple(placed)
