"""Blocks of neighbouring rows, read several at a time in the background; the latest are kept in memory.

The order that `data/plan.py` asks for stays within 64 blocks for some hundred steps: each block is one read an epoch,
of some 270 kB where T = 512, and not one a row. So remote storage and cold disks see few and large reads, a batch is
one indexing of memory, and the memory is bounded whatever the size of the dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures

import numpy as np

from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset.manifest import Shard

BLOCK_ROWS = 256
# Two windows of the plan, the one in use and the one to come, and some blocks to spare.
CACHED_BLOCKS = 160
READ_THREADS = {"local": 4, "remote": 16}


class BlockReader:
    """The blocks of some shards, numbered on from one shard to the next; a shard's last block may be shorter.

    The CRCs of a block's rows are compared when it is first read. They are again where its bytes came over a network
    or from a cache, which may fail at any time; a local file is read again without.

    Args:
      directory: where the shards are.
      kept: blocks in memory, at most.
      cache: for shards in remote storage.
    """

    def __init__(
        self, directory: str, shards: Sequence[Shard], layout: tfrecord.RecordLayout, kept: int, cache: DiskCache | None
    ) -> None:
        self._directory, self._shards, self._layout = directory, shards, layout
        self._is_local = files.local_path(directory) is not None
        self._cache = None if self._is_local else cache
        counts = np.array([-(-shard.rows // BLOCK_ROWS) for shard in shards], np.int64)
        self._starts = np.cumsum(counts) - counts  # of each shard's blocks
        total = int(counts.sum())
        self._checked = np.zeros(total, bool)
        self._damaged: dict[int, np.ndarray] = {}  # block -> its bad rows, for blocks in memory
        # Memory is slots for blocks; a block is in one slot or in none (-1), and a slot that is free holds block -1.
        slots = min(kept, total)
        self._records = np.empty((slots * BLOCK_ROWS, layout.record_size), np.uint8)
        self._ids = layout.decode(self._records)
        self._slot_of, self._block_in = np.full(total, -1), np.full(slots, -1)
        self._last_used, self._now = np.zeros(slots, np.int64), 0
        self._coming: dict[int, futures.Future[None]] = {}  # slot -> what fills it
        self._pool = futures.ThreadPoolExecutor(READ_THREADS["local" if self._is_local else "remote"], "read")

    def rows(self, shards: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Ids [n, T] of rows, each given by its shard and its number there.

        Raises:
          UserError: storage failed, or one of these rows is damaged (names the shard and the row).
        """
        blocks = self._blocks(shards, within)
        wanted = np.unique(blocks)
        if len(wanted) > len(self._block_in):
            half = len(shards) // 2
            return np.concatenate([self.rows(shards[:half], within[:half]), self.rows(shards[half:], within[half:])])
        self._ask(wanted)
        for slot in self._coming.keys() & set(self._slot_of[wanted].tolist()):
            self._settle(slot)
        for block in self._damaged.keys() & set(wanted.tolist()):
            self._refuse(block, within[blocks == block])
        return self._ids[self._slot_of[blocks] * BLOCK_ROWS + within % BLOCK_ROWS]

    def prefetch(self, shards: np.ndarray, within: np.ndarray) -> None:
        """Starts reading the blocks of these rows where they aren't in memory; waits for none of them."""
        self._ask(np.unique(self._blocks(shards, within))[: len(self._block_in) // 2])

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _blocks(self, shards: np.ndarray, within: np.ndarray) -> np.ndarray:
        return self._starts[shards] + within // BLOCK_ROWS

    def _ask(self, wanted: np.ndarray) -> None:
        self._now += 1
        slots = self._slot_of[wanted]
        self._last_used[slots[slots >= 0]] = self._now
        for block in wanted[slots < 0].tolist():
            slot = int(self._last_used.argmin())
            if (coming := self._coming.pop(slot, None)) is not None and not coming.cancel():
                futures.wait([coming])
            self._forget(slot)
            self._slot_of[block], self._block_in[slot], self._last_used[slot] = slot, block, self._now
            self._coming[slot] = self._pool.submit(self._fill, slot, block)

    def _settle(self, slot: int) -> None:
        try:
            self._coming.pop(slot).result()
        except BaseException:
            self._forget(slot)  # to be read again when asked for again
            raise

    def _forget(self, slot: int) -> None:
        block = int(self._block_in[slot])
        if block >= 0:
            self._slot_of[block] = self._block_in[slot] = -1
            self._damaged.pop(block, None)

    def _refuse(self, block: int, asked: np.ndarray) -> None:
        """Raises for the first of the rows asked for that is damaged, if one is."""
        path, _, first, _ = self._place(block)
        for row in np.intersect1d(asked, first + self._damaged[block]).tolist():
            self._forget(int(self._slot_of[block]))
            raise tfrecord.damaged_row_error(path, row)

    def _place(self, block: int) -> tuple[str, str, int, int]:
        """(path of its shard, that one's SHA-256, its first row there, its rows)."""
        number = int(np.searchsorted(self._starts, block, side="right")) - 1
        shard, first = self._shards[number], (block - int(self._starts[number])) * BLOCK_ROWS
        return files.join(self._directory, shard.file), shard.sha256, first, min(BLOCK_ROWS, shard.rows - first)

    def _fill(self, slot: int, block: int) -> None:
        """Runs in the pool."""
        path, sha256, first, count = self._place(block)
        into = self._records[slot * BLOCK_ROWS : slot * BLOCK_ROWS + count]
        offset = first * self._layout.record_size
        kept = self._cache is not None and self._cache.read(sha256, offset, into) == into.nbytes
        if kept and not self._layout.find_damaged(into).size:
            return
        tfrecord.read_records(path, self._layout, first, into)
        if self._is_local and self._checked[block]:
            return
        damaged = self._layout.find_damaged(into)
        if damaged.size and not self._is_local:  # perhaps on the way
            tfrecord.read_records(path, self._layout, first, into)
            damaged = self._layout.find_damaged(into)
        if damaged.size:
            self._damaged[block] = damaged
            return
        self._checked[block] = True
        if self._cache is not None:
            self._cache.write(sha256, offset, into)
