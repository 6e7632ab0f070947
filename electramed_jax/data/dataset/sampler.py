"""Which rows a step trains on: arithmetic on integers, no state, no files.

Words used here. A *row* is a row of the packed split, numbered 0 .. num_rows-1 across its shards. A
*position* counts every row ever fed: step s of batch size B feeds positions s*B .. (s+1)*B-1. Epoch
e is the positions e*num_rows .. (e+1)*num_rows-1. Each epoch permutes the rows in two stages:

    blocks    runs of `block_rows` neighbouring rows (the last one may be shorter) are permuted;
    windows   runs of `window_blocks` blocks in that new order; the rows of a window are permuted.

So rows from all over the split meet in a batch, and yet the reads of some hundred successive steps
stay inside `window_blocks` contiguous ranges, which remote storage serves as few large reads. A
split of at most block_rows * window_blocks rows (16,384 by default) is one window: permuted
completely.

Nothing depends on the number of hosts or on an earlier call, so a resumed run asks for its next
step and gets it.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from electramed_jax.common.errors import UserError

# Second word of Philox's key. It and the next few numbers keep these streams apart from any other use of the seed.
_STREAM = 0x656C656374726130
_BLOCKS, _FIRST_WINDOW = 0, 1


@dataclasses.dataclass(frozen=True)
class EpochSampler:
    """The order in which rows are fed: a function of (seed, batch_size, step) and of nothing else.

    Attributes:
      num_rows: rows in the split.
      batch_size: rows in a global batch; it may exceed num_rows.
      seed: 0 <= seed < 2**64.
      block_rows: neighbouring rows that travel together through the first permutation.
      window_blocks: blocks whose rows are mixed by the second one.
      member: its number in a mixture (`data/mixture.py`), whose members are each shuffled in their own way.

    Raises:
      UserError: if a number is out of range.
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
        """Row numbers of the global batch of `step` (from 0), in order: int64[batch_size].

        Over an epoch every row appears exactly once. A batch that reaches the end of an epoch goes
        on with the first rows of the next.
        """
        assert step >= 0, step
        return self.at(step * self.batch_size, (step + 1) * self.batch_size)

    def at(self, position: int, end: int) -> np.ndarray:
        """Row numbers of the positions from `position` up to, not including, `end`: int64[end - position]."""
        pieces = [np.empty(0, np.int64)]
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
        """Epochs completed when `step` begins; step 0 begins at 0.0."""
        return step * self.batch_size / self.num_rows


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """blocks: int64[number of blocks], block numbers in the order of this epoch.
    window_starts: int64[number of windows], the offset in the epoch at which each window begins."""

    blocks: np.ndarray
    window_starts: np.ndarray


# Some MB at most. A run walks through windows in order: it needs the one it is in and the one that is being read ahead,
# of each member of a mixture.
@functools.lru_cache(maxsize=32)
def _epoch(plan: EpochSampler, epoch: int) -> _Epoch:
    num_blocks = -(-plan.num_rows // plan.block_rows)
    blocks = permutation((plan.seed, _STREAM + plan.member), (epoch, _BLOCKS), num_blocks)
    # The short last block can land anywhere, so that windows are not all of one size.
    sizes = np.minimum(plan.block_rows, plan.num_rows - blocks * plan.block_rows)
    block_starts = np.cumsum(sizes) - sizes
    return _Epoch(blocks, block_starts[:: plan.window_blocks])


@functools.lru_cache(maxsize=64)
def _window_rows(plan: EpochSampler, epoch: int, window: int) -> np.ndarray:
    first = window * plan.window_blocks
    blocks = _epoch(plan, epoch).blocks[first : first + plan.window_blocks]
    rows = (blocks[:, None] * plan.block_rows + np.arange(plan.block_rows)[None, :]).reshape(-1)
    rows = rows[rows < plan.num_rows]
    return rows[permutation((plan.seed, _STREAM + plan.member), (epoch, _FIRST_WINDOW + window), len(rows))]


def permutation(key: tuple[int, int], counter: tuple[int, int], size: int) -> np.ndarray:
    """A permutation of 0 .. size-1, int64, the same on every machine and under every numpy.

    numpy promises that a bit generator's raw output never changes; it does not promise so of
    `Generator.permutation`. Sorting raw 64-bit numbers is therefore the stable way to shuffle.

    Args:
      key: of Philox: the seed, and a word that keeps this use of the seed apart from others.
      counter: the high words of its 256-bit counter, so that streams of one key cannot overlap.
    """
    philox = np.random.Philox(key=np.array(key, np.uint64), counter=np.array([0, 0, *counter], np.uint64))
    return np.argsort(philox.random_raw(size), kind="stable").astype(np.int64)
