"""The rows of a split by number, wherever its shards are.

Local shards are memory-mapped: any row costs the same, and what the process holds of them is the system's page
cache. Remote ones (gs://, memory://) are read in blocks: see `data/blocks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from electramed_jax.common import files, records
from electramed_jax.common.cache import DiskCache
from electramed_jax.common.errors import UserError
from electramed_jax.data.blocks import RemoteBlocks
from electramed_jax.data.dataset import Dataset
from electramed_jax.data.manifest import Manifest


class SplitRows:
    """`split_rows[numbers]` -> [len(numbers), T] of the manifest's dtype; numbers span all shards of a folder.

    Attributes:
      is_remote: whether `expect` makes a difference.

    Raises:
      UserError: if the split is unknown or empty; on reading, if a shard is missing, cut short or
        a row of it does not match its checksum (the message names the shard and the row).
    """

    def __init__(self, directory: str, manifest: Manifest, split: str, cache: DiskCache | None = None) -> None:
        if split not in manifest.splits:
            raise UserError(f"{directory}: no split {split!r}; it has {', '.join(manifest.splits)}")
        if not manifest.splits[split].rows:
            raise UserError(
                f"{directory}: split {split!r} has no rows; choose another split, or give it"
                " documents when running electramed prepare (--validation, --test)"
            )
        self._directory, self._manifest = directory, manifest
        self._shards = manifest.splits[split].shards
        rows = np.array([shard.rows for shard in self._shards], np.int64)
        self._starts = np.cumsum(rows) - rows
        self._length = int(rows.sum())
        self._open_shards: dict[int, records.RowFile] = {}
        self._blocks: RemoteBlocks | None = None
        self.is_remote = files.local_path(directory) is None
        if self.is_remote:
            layout = records.Layout(manifest.row_length, manifest.dtype)
            self._blocks = RemoteBlocks(directory, self._shards, layout, cache)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        shards, within = self._place(numbers)
        ids = np.empty((len(within), self._manifest.row_length), np.dtype(self._manifest.dtype))
        if self._blocks is None:
            for shard, chosen in groups(shards):
                ids[chosen] = self._shard(shard)[within[chosen]]
            return ids
        wanted = list(_blocks(shards, within))
        coming = self._blocks.ask(key for key, _ in wanted)  # all of them, before waiting for the first
        for (key, chosen), block in zip(wanted, coming, strict=True):
            ids[chosen] = self._blocks.rows(key, block, within[chosen] % records.BLOCK_ROWS)
        return ids

    def expect(self, numbers: np.ndarray) -> None:
        """Starts fetching what these rows will need, if their storage is remote; returns at once."""
        if self._blocks is not None:
            self._blocks.ask(key for key, _ in _blocks(*self._place(numbers)))

    def close(self) -> None:
        if self._blocks is not None:
            self._blocks.close()

    def _place(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The shard of each row, and its number there."""
        numbers = np.asarray(numbers, np.int64)
        # side="right": an empty shard shares its start with the next one, which is the one meant.
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        return shards, numbers - self._starts[shards]

    def _shard(self, shard: int) -> records.RowFile:
        # Opened when first needed: a host of a pod may have hundreds of shards before it.
        if shard not in self._open_shards:
            path = files.join(self._directory, self._shards[shard].file)
            self._open_shards[shard] = records.RowFile(path, self._manifest.row_length, self._manifest.dtype)
        return self._open_shards[shard]


class DatasetRows:
    """The rows of a split over all folders of a dataset, numbered on from one folder to the next.

    Folders whose split is empty take no numbers; otherwise as `SplitRows`.
    """

    def __init__(self, dataset: Dataset, split: str, cache: DiskCache | None = None) -> None:
        folders = list(zip(dataset.folders, dataset.manifests, dataset.rows_of(split), strict=True))
        filled = [folder for folder in folders if folder[2]] or folders[:1]  # the first says that it is empty
        self._parts = [SplitRows(folder, manifest, split, cache) for folder, manifest, _ in filled]
        rows = np.array([len(part) for part in self._parts], np.int64)
        self._starts, self._length = np.cumsum(rows) - rows, int(rows.sum())
        first = dataset.manifests[0]
        self._row_length, self._dtype = first.row_length, np.dtype(first.dtype)
        self.is_remote = any(part.is_remote for part in self._parts)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        if len(self._parts) == 1:
            return self._parts[0][numbers]
        self.expect(numbers)  # all folders, before waiting for the first
        ids = np.empty((len(numbers), self._row_length), self._dtype)
        for part, chosen, own in self._place(numbers):
            ids[chosen] = self._parts[part][own]
        return ids

    def expect(self, numbers: np.ndarray) -> None:
        """As `SplitRows.expect`."""
        if self.is_remote:
            for part, _, own in self._place(numbers):
                self._parts[part].expect(own)

    def close(self) -> None:
        for part in self._parts:
            part.close()

    def _place(self, numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(folder, which of `numbers` are its own, their numbers there)."""
        numbers = np.asarray(numbers, np.int64)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        for part, chosen in groups(parts):
            yield part, chosen, numbers[chosen] - self._starts[part]


def groups(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(key, the indices at which it stands) for each different key of int64[n]."""
    order = np.argsort(keys, kind="stable")
    for indices in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(indices):
            yield int(keys[indices[0]]), indices


def _blocks(shards: np.ndarray, within: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """((shard, block of it), the indices of its rows) for each block that the rows lie in."""
    for key, chosen in groups(shards << 32 | within // records.BLOCK_ROWS):
        yield divmod(key, 1 << 32), chosen
