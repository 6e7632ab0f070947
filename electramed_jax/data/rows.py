"""The rows of a split by number, wherever its shards are.

Local shards are memory-mapped: any row costs the same. Remote ones (gs://, s3://, memory://) are
read in blocks of neighbouring rows, several at a time, and the latest blocks are kept: the order
that `data/plan.py` asks for stays within 64 blocks for some hundred steps, so each block is fetched
once an epoch and not once a row.
"""

from __future__ import annotations

import collections
from concurrent import futures

import numpy as np

from electramed_jax.common import files
from electramed_jax.common.errors import UserError
from electramed_jax.common.records import RowFile
from electramed_jax.data.manifest import Manifest

BLOCK_ROWS = 256
# Two windows of the plan, the one in use and the one being entered, and some blocks to spare.
KEPT_BLOCKS = 160
READS_AT_ONCE = 16


class SplitRows:
    """`split_rows[numbers]` -> [len(numbers), T] of the manifest's dtype; numbers span all shards.

    Raises:
      UserError: if the split is unknown or empty; on reading, if a shard is missing, cut short or
        a row of it does not match its checksum (the message names the shard and the row).
    """

    def __init__(self, directory: str, manifest: Manifest, split: str) -> None:
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
        self._open_shards: dict[int, RowFile] = {}
        self._is_remote = files.local_path(directory) is None
        self._kept: collections.OrderedDict[tuple[int, int], np.ndarray] = collections.OrderedDict()
        self._pool = futures.ThreadPoolExecutor(READS_AT_ONCE, "read") if self._is_remote else None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        numbers = np.asarray(numbers, np.int64)
        # side="right": an empty shard shares its start with the next one, which is the one meant.
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        within = numbers - self._starts[shards]
        rows = np.empty((len(numbers), self._manifest.row_length), np.dtype(self._manifest.dtype))
        if not self._is_remote:
            for shard in np.unique(shards):
                chosen = np.flatnonzero(shards == shard)
                rows[chosen] = self._shard(int(shard))[within[chosen]]
            return rows
        keys = list(zip(shards.tolist(), (within // BLOCK_ROWS).tolist()))
        blocks = self._blocks(set(keys))
        for i, key in enumerate(keys):
            rows[i] = blocks[key][within[i] % BLOCK_ROWS]
        return rows

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _shard(self, shard: int) -> RowFile:
        # Opened when first needed: a host of a pod may have hundreds of shards before it.
        if shard not in self._open_shards:
            path = files.join(self._directory, self._shards[shard].file)
            self._open_shards[shard] = RowFile(path, self._manifest.row_length, self._manifest.dtype)
        return self._open_shards[shard]

    def _blocks(self, keys: set[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
        """{(shard, block): rows}; what is not kept is fetched, all missing blocks at once."""
        missing = sorted(key for key in keys if key not in self._kept)
        blocks = {key: self._kept.pop(key) for key in keys if key in self._kept}
        blocks.update(zip(missing, self._pool.map(self._fetch, missing)))
        self._kept.update(blocks)  # at the recent end
        while len(self._kept) > KEPT_BLOCKS:
            self._kept.popitem(last=False)
        return blocks

    def _fetch(self, key: tuple[int, int]) -> np.ndarray:
        shard, block = key
        file = self._shard(shard)
        return file[block * BLOCK_ROWS : min((block + 1) * BLOCK_ROWS, len(file))]
