"""The rows of a split by number, wherever its shards are."""

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
    """`split_rows[numbers]` -> [len(numbers), T] of the manifest's dtype; numbers span all shards of a folder.

    Args:
      kept_blocks, cache: as in `BlockReader`.

    Raises:
      UserError: if the split is unknown or empty; on reading, if a shard is missing, cut short or
        a row of it does not match its checksum (the message names the shard and the row).
    """

    def __init__(
        self,
        directory: str,
        manifest: Manifest,
        split: str,
        *,
        kept_blocks: int = CACHED_BLOCKS,
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
        self._blocks = BlockReader(directory, shards, layout, kept_blocks, cache)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        return self._blocks.rows(*self._place(numbers))

    def prefetch(self, numbers: np.ndarray) -> None:
        """Starts reading what these rows will need; returns at once."""
        self._blocks.prefetch(*self._place(numbers))

    def close(self) -> None:
        self._blocks.close()

    def _place(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shard of each row, and its number there."""
        numbers = np.asarray(numbers, np.int64)
        # side="right": an empty shard shares its start with the next one, which is the one meant.
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        return shards, numbers - self._starts[shards]


class DatasetRows:
    """The rows of a split over all folders of a dataset, numbered on from one folder to the next.

    Folders whose split is empty take no numbers; otherwise as `SplitRows`.
    """

    def __init__(
        self, dataset: Dataset, split: str, *, kept_blocks: int = CACHED_BLOCKS, cache: DiskCache | None = None
    ) -> None:
        folders = list(zip(dataset.folders, dataset.manifests, dataset.num_rows(split), strict=True))
        filled = [folder for folder in folders if folder[2]] or folders[:1]  # the first says that it is empty
        self._parts = [
            SplitRows(folder, manifest, split, kept_blocks=kept_blocks, cache=cache) for folder, manifest, _ in filled
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
        self.prefetch(numbers)  # in all folders, before waiting for the first
        ids = np.empty((len(numbers), self._row_length), self._dtype)
        for part, chosen, own in self._place(numbers):
            ids[chosen] = part[own]
        return ids

    def prefetch(self, numbers: np.ndarray) -> None:
        """As `SplitRows.expect`."""
        for part, _, own in self._place(numbers):
            part.prefetch(own)

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _place(self, numbers: np.ndarray) -> Iterator[tuple[SplitRows, np.ndarray, np.ndarray]]:
        """(a folder, which of `numbers` are its own, their numbers there)."""
        numbers = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        for k, part in enumerate(self._parts):
            if len(chosen := np.flatnonzero(parts == k)):
                yield part, chosen, numbers[chosen] - self._starts[k]
