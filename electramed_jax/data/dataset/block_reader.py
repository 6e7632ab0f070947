"""Reads blocks of consecutive rows, several at a time in the background, and keeps the latest ones in memory.

The order of `sampler.EpochSampler` stays within 64 blocks for a few hundred steps. Each block is one read per epoch,
of about 270 kB for T = 512, instead of one read per row. So remote storage and cold disks get few large reads, a batch
is one indexing of memory, and the memory is bounded for a dataset of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent import futures

import numpy as np

from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset.manifest import Shard

BLOCK_ROWS = 256
# Two windows of the sampler, the current and the next one, and some spare blocks.
CACHED_BLOCKS = 160
READ_THREADS = {"local": 4, "remote": 16}


class BlockReader:
    """Reads rows of shards by blocks. Blocks are numbered across the shards; the last one of a shard may be shorter.

    The CRCs of the rows of a block are verified when it is first read. They are verified at every read from a network
    or from a disk cache, which may fail at any time. A local file is read again without verification.

    Args:
      directory: the folder of the shards.
      cached_blocks: maximum number of blocks in memory.
      cache: disk cache for shards in remote storage.
    """

    def __init__(
        self,
        directory: str,
        shards: Sequence[Shard],
        layout: tfrecord.RecordLayout,
        cached_blocks: int,
        cache: DiskCache | None,
    ) -> None:
        self._directory, self._shards, self._layout = directory, shards, layout
        self._is_local = files.local_path(directory) is not None
        self._cache = None if self._is_local else cache
        counts = np.array([-(-shard.rows // BLOCK_ROWS) for shard in shards], np.int64)
        self._starts = np.cumsum(counts) - counts  # first block of each shard
        total = int(counts.sum())
        self._verified = np.zeros(total, bool)
        self._damaged: dict[int, np.ndarray] = {}  # block -> its damaged rows, for blocks in memory
        # Memory is divided into slots for blocks. A block is in one slot or in none (-1); a free slot holds block -1.
        slots = min(cached_blocks, total)
        self._records = np.empty((slots * BLOCK_ROWS, layout.record_size), np.uint8)
        self._ids = layout.decode(self._records)
        self._slot_of, self._block_in = np.full(total, -1), np.full(slots, -1)
        self._last_used, self._now = np.zeros(slots, np.int64), 0
        self._reads: dict[int, futures.Future[None]] = {}  # slot -> the read that fills it
        self._pool = futures.ThreadPoolExecutor(READ_THREADS["local" if self._is_local else "remote"], "read")

    def rows(self, shards: np.ndarray, rows_in_shard: np.ndarray) -> np.ndarray:
        """Returns ids [n, T] of rows, each given by its shard and its number in the shard.

        Raises:
          UserError: storage failed, or one of these rows is damaged (names the shard and the row).
        """
        blocks = self._block_numbers(shards, rows_in_shard)
        needed = np.unique(blocks)
        if len(needed) > len(self._block_in):
            half = len(shards) // 2
            halves = (slice(None, half), slice(half, None))
            return np.concatenate([self.rows(shards[part], rows_in_shard[part]) for part in halves])
        self._start_reads(needed)
        for slot in self._reads.keys() & set(self._slot_of[needed].tolist()):
            self._finish_read(slot)
        for block in self._damaged.keys() & set(needed.tolist()):
            self._raise_if_damaged(block, rows_in_shard[blocks == block])
        return self._ids[self._slot_of[blocks] * BLOCK_ROWS + rows_in_shard % BLOCK_ROWS]

    def prefetch(self, shards: np.ndarray, rows_in_shard: np.ndarray) -> None:
        """Starts reading the blocks of these rows that are not in memory, without waiting for them."""
        self._start_reads(np.unique(self._block_numbers(shards, rows_in_shard))[: len(self._block_in) // 2])

    def close(self) -> None:
        """Cancels the reads that have not begun, without waiting for the others."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _block_numbers(self, shards: np.ndarray, rows_in_shard: np.ndarray) -> np.ndarray:
        return self._starts[shards] + rows_in_shard // BLOCK_ROWS

    def _start_reads(self, needed: np.ndarray) -> None:
        self._now += 1
        slots = self._slot_of[needed]
        self._last_used[slots[slots >= 0]] = self._now
        for block in needed[slots < 0].tolist():
            slot = int(self._last_used.argmin())
            if (read := self._reads.pop(slot, None)) is not None and not read.cancel():
                futures.wait([read])
            self._evict(slot)
            self._slot_of[block], self._block_in[slot], self._last_used[slot] = slot, block, self._now
            self._reads[slot] = self._pool.submit(self._read, slot, block)

    def _finish_read(self, slot: int) -> None:
        try:
            self._reads.pop(slot).result()
        except BaseException:
            self._evict(slot)  # the next request reads the block again
            raise

    def _evict(self, slot: int) -> None:
        block = int(self._block_in[slot])
        if block >= 0:
            self._slot_of[block] = self._block_in[slot] = -1
            self._damaged.pop(block, None)

    def _raise_if_damaged(self, block: int, requested: np.ndarray) -> None:
        path, _, first, _ = self._locate(block)
        for row in np.intersect1d(requested, first + self._damaged[block]).tolist():
            self._evict(int(self._slot_of[block]))
            raise tfrecord.damaged_row_error(path, row)

    def _locate(self, block: int) -> tuple[str, str, int, int]:
        """Returns (path of the block's shard, SHA-256 of the shard, first row in the shard, rows)."""
        number = int(np.searchsorted(self._starts, block, side="right")) - 1
        shard, first = self._shards[number], (block - int(self._starts[number])) * BLOCK_ROWS
        return files.join(self._directory, shard.file), shard.sha256, first, min(BLOCK_ROWS, shard.rows - first)

    def _read(self, slot: int, block: int) -> None:
        """Reads a block into a slot; runs in the pool."""
        path, sha256, first, count = self._locate(block)
        into = self._records[slot * BLOCK_ROWS : slot * BLOCK_ROWS + count]
        offset = first * self._layout.record_size
        is_cached = self._cache is not None and self._cache.read(sha256, offset, into) == into.nbytes
        if is_cached and not self._layout.find_damaged(into).size:
            return
        tfrecord.read_records(path, self._layout, first, into)
        if self._is_local and self._verified[block]:
            return
        damaged = self._layout.find_damaged(into)
        if damaged.size and not self._is_local:  # the bytes may have changed in transfer
            tfrecord.read_records(path, self._layout, first, into)
            damaged = self._layout.find_damaged(into)
        if damaged.size:
            self._damaged[block] = damaged
            return
        self._verified[block] = True
        if self._cache is not None:
            self._cache.write(sha256, offset, into)
