"""Blocks of neighbouring rows of shards in remote storage: fetched several at a time, the latest kept.

The order that `data/plan.py` asks for stays within 64 blocks for some hundred steps, so that each block is one range
read an epoch and not one a row. With a `DiskCache` it is one read in all, as long as the cache has room.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from electramed_jax.common import files, records
from electramed_jax.common.cache import DiskCache
from electramed_jax.data.manifest import Shard

# Two windows of the plan, the one in use and the one to come, and some blocks to spare.
KEPT_BLOCKS = 160
READS_AT_ONCE = 16

Key = tuple[int, int]  # shard, block of it


class Block(NamedTuple):
    """ids [n, T]; damaged: int64, the numbers within the block of those rows that fail their checksum."""

    ids: np.ndarray
    damaged: np.ndarray


class RemoteBlocks:
    """The blocks of the shards of one split. Every one that arrives has its rows' checksums compared."""

    def __init__(
        self, directory: str, shards: Sequence[Shard], layout: records.Layout, cache: DiskCache | None
    ) -> None:
        self._directory, self._shards, self._layout, self._cache = directory, shards, layout, cache
        self._latest: collections.OrderedDict[Key, futures.Future[Block]] = collections.OrderedDict()
        self._pool = futures.ThreadPoolExecutor(READS_AT_ONCE, "read")

    def ask(self, keys: Iterable[Key]) -> list[futures.Future[Block]]:
        """The blocks, in the order of the keys; what isn't kept is on its way from now on."""
        asked = []
        for key in keys:
            coming = self._latest.pop(key, None)
            if coming is None or (coming.done() and coming.exception() is not None):
                coming = self._pool.submit(self._fetch, *key)
            self._latest[key] = coming  # at the recent end
            asked.append(coming)
        while len(self._latest) > KEPT_BLOCKS:
            self._latest.popitem(last=False)
        return asked

    def rows(self, key: Key, coming: futures.Future[Block], within: np.ndarray) -> np.ndarray:
        """Ids [n, T] of rows of a block that was asked for.

        Raises:
          UserError: storage failed, or one of these rows is damaged (names the shard and the row).
        """
        block = coming.result()
        if block.damaged.size:
            for row in within[np.isin(within, block.damaged)].tolist():
                self._latest.pop(key, None)  # to be fetched anew when asked for again
                path = files.join(self._directory, self._shards[key[0]].file)
                raise records.damaged_row(path, key[1] * records.BLOCK_ROWS + row)
        return block.ids[within]

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, shard_number: int, number: int) -> Block:
        shard, layout, cache = self._shards[shard_number], self._layout, self._cache
        first = number * records.BLOCK_ROWS
        count = min(records.BLOCK_ROWS, shard.rows - first)
        offset, length = first * layout.record_size, count * layout.record_size
        if cache is not None and len(kept := cache.read(shard.sha256, offset, length)) == length:
            block = self._block(np.frombuffer(kept, np.uint8).reshape(count, -1))
            if not block.damaged.size:
                return block
        path = files.join(self._directory, shard.file)
        for _ in range(2):  # a byte may have been lost on the way
            found = records.read_records(path, layout, first, count)
            block = self._block(found)
            if not block.damaged.size:
                if cache is not None:
                    cache.write(shard.sha256, offset, found.data)
                break
        return block

    def _block(self, found: np.ndarray) -> Block:
        return Block(self._layout.decode(found), self._layout.damaged(found))
