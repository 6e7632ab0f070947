"""Rows of a split by number, in local or remote storage."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import tfrecord
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset.block_reader import CACHED_BLOCKS, BlockReader
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.manifest import Manifest


class SplitRows:
    """Rows of a split of one folder: `split_rows[numbers]` -> [n, T] of the manifest's dtype.

    Rows are numbered across all shards of the split.

    Args:
      cached_blocks, cache: see `BlockReader`.

    Raises:
      UserError: the split is unknown or empty. At reading: a shard is missing or cut short, or the checksum of
        a row differs (the message names the shard and the row).
    """

    def __init__(
        self,
        directory: str,
        manifest: Manifest,
        split: str,
        *,
        cached_blocks: int = CACHED_BLOCKS,
        cache: DiskCache | None = None,
    ) -> None:
        if split not in manifest.splits:
            raise UserError(f"{directory}: no split {split!r}; it has {', '.join(manifest.splits)}")
        if not manifest.splits[split].rows:
            raise UserError(
                f"{directory}: split {split!r} has no rows; choose another split, or give it"
                " documents when running electramed prepare (--validation, --test)"
            )
        shards = manifest.splits[split].shards
        rows = np.array([shard.rows for shard in shards], np.int64)
        self._starts, self._length = np.cumsum(rows) - rows, int(rows.sum())
        layout = tfrecord.RecordLayout(manifest.row_length, manifest.dtype)
        self._blocks = BlockReader(directory, shards, layout, cached_blocks, cache)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        return self._blocks.rows(*self._locate(numbers))

    def prefetch(self, numbers: np.ndarray) -> None:
        """Starts reading the blocks of these rows, without waiting for them."""
        self._blocks.prefetch(*self._locate(numbers))

    def close(self) -> None:
        """Cancels the reads that have not begun."""
        self._blocks.close()

    def _locate(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard of each row and the number of the row in the shard."""
        numbers = np.asarray(numbers, np.int64)
        # side="right": an empty shard has the same start as the next one, which holds the row.
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        return shards, numbers - self._starts[shards]


class DatasetRows:
    """Rows of a split of all folders of a dataset, numbered across the folders.

    Folders with an empty split are skipped. The interface is that of `SplitRows`.
    """

    def __init__(
        self, dataset: Dataset, split: str, *, cached_blocks: int = CACHED_BLOCKS, cache: DiskCache | None = None
    ) -> None:
        folders = list(zip(dataset.folders, dataset.manifests, dataset.num_rows(split), strict=True))
        nonempty = [folder for folder in folders if folder[2]] or folders[:1]  # for the first one SplitRows raises
        self._parts = [
            SplitRows(folder, manifest, split, cached_blocks=cached_blocks, cache=cache)
            for folder, manifest, _ in nonempty
        ]
        rows = np.array([len(part) for part in self._parts], np.int64)
        self._starts, self._length = np.cumsum(rows) - rows, int(rows.sum())
        first = dataset.manifests[0]
        self._row_length, self._dtype = first.row_length, np.dtype(first.dtype)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        if len(self._parts) == 1:
            return self._parts[0][numbers]
        self.prefetch(numbers)  # from all folders, before waiting for the first
        ids = np.empty((len(numbers), self._row_length), self._dtype)
        for part, indices, part_numbers in self._by_folder(numbers):
            ids[indices] = part[part_numbers]
        return ids

    def prefetch(self, numbers: np.ndarray) -> None:
        """Starts reading the blocks of these rows, without waiting for them."""
        for part, _, part_numbers in self._by_folder(numbers):
            part.prefetch(part_numbers)

    def close(self) -> None:
        """Cancels the reads that have not begun."""
        for part in self._parts:
            part.close()

    def _by_folder(self, numbers: np.ndarray) -> Iterator[tuple[SplitRows, np.ndarray, np.ndarray]]:
        """Yields (rows of a folder, indices into `numbers` of its rows, numbers of these rows in the folder)."""
        numbers = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        for k, part in enumerate(self._parts):
            if len(indices := np.flatnonzero(parts == k)):
                yield part, indices, numbers[indices] - self._starts[k]
