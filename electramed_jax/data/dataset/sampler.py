"""Computes which rows a step trains on: integer arithmetic without state or files.

Terms. A *row* is a row of the packed split, numbered 0 .. num_rows-1 across its shards. A *position* counts
the rows of all batches: step s of batch size B has the positions s*B .. (s+1)*B-1. Epoch e has the positions
e*num_rows .. (e+1)*num_rows-1. Each epoch permutes the rows in two stages:

    blocks    Runs of `block_rows` consecutive rows (the last one may be shorter) are permuted.
    windows   For each run of `window_blocks` blocks in that new order, all rows in it are permuted.

So a batch has rows from all over the split, but the reads of a few hundred successive steps stay inside
`window_blocks` contiguous ranges, which remote storage serves as few large reads. A split of at most
block_rows * window_blocks rows (16,384 by default) is one window: it is permuted completely.

The result depends on neither the number of hosts nor an earlier call, so a resumed run needs only its step.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from electramed_jax.common.errors import UserError

# Second word of Philox's key. It and the next few numbers separate these streams from other uses of the seed.
_STREAM = 0x656C656374726130
_BLOCKS, _FIRST_WINDOW = 0, 1


@dataclasses.dataclass(frozen=True)
class EpochSampler:
    """The order of rows: a function of (seed, batch_size, step) alone.

    Attributes:
      num_rows: rows in the split.
      batch_size: rows in a global batch; it may exceed num_rows.
      seed: 0 <= seed < 2**64.
      block_rows: consecutive rows that the first permutation keeps together.
      window_blocks: blocks in a window; the second permutation mixes the rows of a window.
      member: number of the dataset in a mixture (see `mixture`); each member has a permutation of its own.

    Raises:
      UserError: a number is out of range.
    """

    num_rows: int
    batch_size: int
    seed: int
    block_rows: int = 256
    window_blocks: int = 64
    member: int = 0

    def __post_init__(self) -> None:
        for name in ("num_rows", "batch_size", "block_rows", "window_blocks"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}; wanted at least 1")
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed={self.seed}; wanted an integer from 0 to 2**64 - 1")

    def rows(self, step: int) -> np.ndarray:
        """Returns the row numbers of the global batch of `step` (from 0), in order: int64[batch_size].

        Every row appears exactly once per epoch. A batch that reaches the end of an epoch continues with the first
        rows of the next one.
        """
        assert step >= 0, step
        return self.rows_at(step * self.batch_size, (step + 1) * self.batch_size)

    def rows_at(self, begin: int, end: int) -> np.ndarray:
        """Returns the row numbers of the positions begin .. end-1: int64[end - begin]."""
        pieces = [np.empty(0, np.int64)]
        position = begin
        while position < end:
            epoch, offset = divmod(position, self.num_rows)
            starts = _epoch(self, epoch).window_starts
            window = int(np.searchsorted(starts, offset, side="right")) - 1
            first = offset - int(starts[window])
            piece = _window_rows(self, epoch, window)[first : first + end - position]
            pieces.append(piece)
            position += len(piece)
        return np.concatenate(pieces)

    def epoch(self, step: int) -> float:
        """Returns the epochs completed when `step` begins; 0.0 at step 0."""
        return step * self.batch_size / self.num_rows


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """Order of the blocks in an epoch.

    Attributes:
      blocks: int64[number of blocks], block numbers in the order of this epoch.
      window_starts: int64[number of windows], the offset in the epoch at which each window begins.
    """

    blocks: np.ndarray
    window_starts: np.ndarray


# A few MB at most. A run passes through windows in order: it needs the current one and the one that is prefetched,
# for each member of a mixture.
@functools.lru_cache(maxsize=32)
def _epoch(sampler: EpochSampler, epoch: int) -> _Epoch:
    num_blocks = -(-sampler.num_rows // sampler.block_rows)
    blocks = permutation((sampler.seed, _STREAM + sampler.member), (epoch, _BLOCKS), num_blocks)
    # The short last block can be anywhere in the order, so windows differ in size.
    sizes = np.minimum(sampler.block_rows, sampler.num_rows - blocks * sampler.block_rows)
    block_starts = np.cumsum(sizes) - sizes
    return _Epoch(blocks, block_starts[:: sampler.window_blocks])


@functools.lru_cache(maxsize=64)
def _window_rows(sampler: EpochSampler, epoch: int, window: int) -> np.ndarray:
    first = window * sampler.window_blocks
    blocks = _epoch(sampler, epoch).blocks[first : first + sampler.window_blocks]
    rows = (blocks[:, None] * sampler.block_rows + np.arange(sampler.block_rows)[None, :]).reshape(-1)
    rows = rows[rows < sampler.num_rows]
    return rows[permutation((sampler.seed, _STREAM + sampler.member), (epoch, _FIRST_WINDOW + window), len(rows))]


def permutation(key: tuple[int, int], counter: tuple[int, int], size: int) -> np.ndarray:
    """Returns a permutation of 0 .. size-1, int64, the same on every machine and for every numpy version.

    numpy guarantees that the raw output of a bit generator never changes. It gives no such guarantee for
    `Generator.permutation`, so this function sorts raw 64-bit numbers.

    Args:
      key: of Philox: the seed, and a word that separates this use of the seed from others.
      counter: the high words of the 256-bit counter, so that streams of one key cannot overlap.
    """
    philox = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, 0, *counter], np.uint64))
    return np.argsort(philox.random_raw(size), kind="stable").astype(np.int64)
