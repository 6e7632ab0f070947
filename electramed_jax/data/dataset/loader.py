"""Loads batches of a packed dataset as global `jax.Array`s. A training batch is a function of the step: `.at(step)`.

`Loader` is for training: rows in the order of `sampler`, or of `mixture` for a dataset of several folders.
`ordered_batches` is for evaluation: the same rows in the same order every time. Each host reads only the blocks that
hold rows of its own devices. A batch is spread over a window of blocks, so these are most of the blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent import futures

import jax
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset import mixture
from electramed_jax.data.dataset.block_reader import BLOCK_ROWS, CACHED_BLOCKS
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.row_reader import DatasetRows

Batch = dict[str, jax.Array]

PREFETCHED_STEPS = 2
ROWS_AHEAD = 16_384  # blocks are prefetched this far ahead: one window of the sampler


class Loader:
    """Training batches of one split.

    Args:
      dataset: the packed folders, local or remote.
      split: usually "train".
      batch_size: rows of the global batch.
      seed: of the order of rows.
      sharding: of [B, T] arrays; the mesh's batch axes split B.
      weights: of the folders, in the format of `mixture.parse_weights`.
      cache: disk cache for remote shards.

    Attributes:
      dataset: the folders and their manifests.
      manifest: the manifest of the whole dataset.
      rows_in_epoch: rows in the split, over all folders.

    Raises:
      UserError: unknown or empty split, a batch size that the mesh does not divide, folders that cannot be mixed.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        batch_size: int,
        seed: int,
        sharding: jax.sharding.NamedSharding,
        *,
        weights: str = "",
        cache: DiskCache | None = None,
    ) -> None:
        check_batch_size(batch_size, sharding)
        self.dataset, self.manifest = dataset, dataset.manifest
        cached_blocks = CACHED_BLOCKS + 2 * (batch_size // BLOCK_ROWS)
        self._rows = DatasetRows(self.dataset, split, cached_blocks=cached_blocks, cache=cache)
        counts = self.dataset.num_rows(split)
        if 0 in counts:
            folder = self.dataset.folders[counts.index(0)]
            raise UserError(f"{folder}: split {split!r} has no rows; leave out the folder, or pack it again")
        self._sampler = mixture.make_sampler(counts, mixture.parse_weights(weights), batch_size, seed)
        self.rows_in_epoch = len(self._rows)
        self._shape, self._sharding = (batch_size, self.manifest.row_length), sharding
        self._steps_ahead = max(PREFETCHED_STEPS, ROWS_AHEAD // batch_size)
        self._prefetcher = StepPrefetcher(self._read)

    def at(self, step: int) -> Batch:
        """Returns {"input_ids": int32[B, T]} of `step` (from 0) and prefetches the next two steps.

        Steps can be requested in any order; consecutive steps are fast.

        Raises:
          UserError: a row of this batch cannot be read, or its checksum differs.
        """
        return self._prefetcher.at(step)

    def epoch(self, step: int) -> float:
        """Returns the rows of the steps before `step` divided by the rows of all folders."""
        return self._sampler.epoch(step)

    def mixture_summary(self, steps: int) -> list[str]:
        """Returns one line per folder of a mixture: its rows, its share of the batches, its epochs in `steps` steps."""
        if not isinstance(self._sampler, mixture.MixtureSampler):
            return []
        total = steps * self._sampler.batch_size
        shares = [quota / mixture.ROUND_POSITIONS for quota in self._sampler.quotas]
        return [
            f"{folder}: {rows:,} rows, {share:.2%} of each batch on average, "
            f"{total * share / rows:,.1f} epochs in {steps:,} steps"
            for folder, rows, share in zip(self.dataset.folders, self._sampler.num_rows, shares, strict=True)
        ]

    def close(self) -> None:
        """Stops prefetching and reading."""
        self._prefetcher.close()
        self._rows.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int) -> Batch:
        numbers = self._sampler.rows(step)
        host_rows = _host_rows(self._shape, self._sharding)
        self._rows.prefetch(numbers[host_rows])
        self._rows.prefetch(self._sampler.rows(step + self._steps_ahead)[host_rows])
        return global_batch(lambda first, end: self._rows[numbers[first:end]], self._shape, self._sharding)


def ordered_batches(
    dataset: Dataset,
    split: str,
    batch_size: int,
    sharding: jax.sharding.NamedSharding,
    max_batches: int | None = None,
    *,
    cache: DiskCache | None = None,
) -> Iterator[Batch]:
    """Yields {"input_ids": int32[B, T]} of the rows of a split in the order they were packed, for evaluation.

    The rows are the same at every call. Several folders follow each other, and their weights have no effect.
    If `max_batches` batches cannot hold the split, they begin at evenly spaced rows, since its first rows alone
    would be a biased sample of the corpus. Otherwise the last batch is filled with rows of [PAD], which no metric
    counts.

    Raises:
      UserError: an error of `Loader`, raised by the call itself and not by the first batch.
    """
    check_batch_size(batch_size, sharding)
    manifest, rows = dataset.manifest, DatasetRows(dataset, split, cache=cache)
    begins = np.arange(0, len(rows), batch_size)
    if max_batches is not None and max_batches * batch_size < len(rows):
        begins = np.arange(max_batches) * len(rows) // max_batches

    def numbers(begin: int, first: int, end: int) -> np.ndarray:
        return np.arange(begin + first, min(begin + end, len(rows)))

    def read(begin: int, first: int, end: int) -> np.ndarray:
        ids = rows[numbers(begin, first, end)]
        padded = np.full((end - first, manifest.row_length), manifest.special.pad, ids.dtype)
        padded[: len(ids)] = ids
        return padded

    def batches() -> Iterator[Batch]:
        try:
            for begin, next_begin in zip(begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True):
                rows.prefetch(numbers(next_begin, 0, batch_size))
                yield global_batch(functools.partial(read, begin), (batch_size, manifest.row_length), sharding)
        finally:
            rows.close()

    return batches()


def check_batch_size(batch_size: int, sharding: jax.sharding.NamedSharding) -> None:
    """Raises UserError unless the batch axes of the mesh divide `batch_size`."""
    axes = sharding.spec[0] if len(sharding.spec) else None
    names = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
    shards = int(np.prod([sharding.mesh.shape[name] for name in names], dtype=np.int64))
    if batch_size < 1 or batch_size % shards:
        below = batch_size // shards * shards
        near = f"{below} or {below + shards}" if below > 0 else f"{shards}"
        raise UserError(
            f"batch_size={batch_size} is not divisible by {'×'.join(names) or 'one row'}={shards};"
            f" use {near}, or make those mesh axes smaller"
        )


def global_batch(
    read: Callable[[int, int], np.ndarray],
    shape: tuple[int, int],
    sharding: jax.sharding.NamedSharding,
) -> Batch:
    """Builds a global batch {"input_ids": int32[B, T]}.

    Args:
      read: (first, end) -> rows first .. end-1 of the batch. Called only for rows of this host's devices, once for
        each distinct range: devices along the tensor axis hold the same rows.
      shape: (B, T).
    """
    cached_read = functools.cache(lambda first, end: read(first, end).astype(np.int32))

    def device_rows(index: tuple[slice, ...] | None) -> np.ndarray:
        assert index is not None
        first, end, _ = index[0].indices(shape[0])
        return cached_read(first, end)[:, index[1]]

    return {"input_ids": jax.make_array_from_callback(shape, sharding, device_rows)}


@functools.lru_cache
def _host_rows(shape: tuple[int, int], sharding: jax.sharding.NamedSharding) -> np.ndarray:
    """Returns the rows of a global batch that this host's devices hold, int64[n]."""
    indices = sharding.addressable_devices_indices_map(shape).values()
    slices = {index[0].indices(shape[0]) for index in indices if index is not None}
    return np.unique(np.concatenate([np.arange(*each) for each in slices]))


class StepPrefetcher:
    """Computes a function of the step, `.at(step)`, and prefetches the next steps in a thread.

    An error in the thread is raised by `.at()` of the step that failed, if that step is requested. The next request
    of that step computes it again.

    Args:
      load: step -> batch.
    """

    def __init__(self, load: Callable[[int], Batch]) -> None:
        self._load = load
        self._thread = futures.ThreadPoolExecutor(1, "batches")
        self._pending: dict[int, futures.Future[Batch]] = {}

    def at(self, step: int) -> Batch:
        """Returns the batch of `step` and starts loading the next `PREFETCHED_STEPS` ones."""
        assert step >= 0, step
        needed = range(step, step + 1 + PREFETCHED_STEPS)
        for other in self._pending.keys() - set(needed):  # the caller skipped them
            self._pending.pop(other).cancel()
        for each in needed:
            if each not in self._pending:
                self._pending[each] = self._thread.submit(self._load, each)
        return self._pending.pop(step).result()

    def close(self) -> None:
        """Cancels the steps that have not begun and waits for the current one."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
