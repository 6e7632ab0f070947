"""Batches of a packed dataset as global `jax.Array`s: `.at(step)`, a function of the step.

`Loader` feeds training in the order of `data/plan.py`, or that of `data/mixture.py` where the dataset is several
folders; `ordered_batches` feeds an evaluation the same rows in the same order every time. Each host reads only the
blocks in which rows of its own devices lie; as a batch is spread over a window of blocks, that is most of them.
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
# How far ahead blocks are read: as many rows as a window of the plan has.
ROWS_AHEAD = 16_384


class Loader:
    """Training batches of one split.

    Args:
      dataset: the packed folders, local or remote.
      split: "train" as a rule.
      batch_size: rows of the global batch.
      seed: of the order of rows.
      sharding: a NamedSharding of [B, T] arrays, split over B by the mesh's batch axes.
      weights: of the folders, as `mixture.parse_weights` reads them.
      cache: keeps what is read of remote shards.
      check_shards: first read every shard whole and compare its SHA-256 with the manifest's. The CRC of each
        row that is fed is checked in any case.

    Attributes:
      dataset: the folders and their manifests.
      manifest: one Manifest for all of it.
      rows_in_epoch: rows in the split, over all folders.

    Raises:
      UserError: no such split, an empty split, a batch size that the mesh cannot share out, folders that cannot
        be mixed.
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
        check_shards: bool = False,
    ) -> None:
        check_batch_size(batch_size, sharding)
        self.dataset, self.manifest = dataset, dataset.manifest
        kept = CACHED_BLOCKS + 2 * (batch_size // BLOCK_ROWS)
        self._rows = DatasetRows(self.dataset, split, kept_blocks=kept, cache=cache)
        counts = self.dataset.num_rows(split)
        if 0 in counts:
            folder = self.dataset.folders[counts.index(0)]
            raise UserError(f"{folder}: split {split!r} has no rows; leave the folder out, or pack it again")
        self._plan = mixture.make_sampler(counts, mixture.parse_weights(weights), batch_size, seed)
        if check_shards:
            self.dataset.verify_shards()
        self.rows_in_epoch = len(self._rows)
        self._shape, self._sharding = (batch_size, self.manifest.row_length), sharding
        self._steps_ahead = max(PREFETCHED_STEPS, ROWS_AHEAD // batch_size)
        self._prefetched = StepPrefetcher(self._read)

    def at(self, step: int) -> Batch:
        """{"input_ids": int32[B, T]} of `step` (from 0); the next two steps are read meanwhile.

        Steps may be asked for in any order; in sequence is fast.

        Raises:
          UserError: if a row of this batch cannot be read or fails its checksum.
        """
        return self._prefetched.at(step)

    def epoch(self, step: int) -> float:
        """Epochs completed when `step` begins; of a mixture: rows fed, in rows of all folders."""
        return self._plan.epoch(step)

    def mixture_summary(self, steps: int) -> list[str]:
        """For each folder of a mixture a line: its rows, its share of what is fed, its epochs in that many steps."""
        if not isinstance(self._plan, mixture.MixtureSampler):
            return []
        fed = steps * self._plan.batch_size
        shares = [quota / mixture.ROUND_POSITIONS for quota in self._plan.quotas]
        return [
            f"{folder}: {rows:,} rows, {share:.2%} of those fed, {fed * share / rows:,.1f} epochs in {steps:,} steps"
            for folder, rows, share in zip(self.dataset.folders, self._plan.num_rows, shares, strict=True)
        ]

    def close(self) -> None:
        self._prefetched.close()
        self._rows.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int) -> Batch:
        numbers = self._plan.rows(step)
        held = _held_rows(self._shape, self._sharding)
        self._rows.prefetch(numbers[held])
        self._rows.prefetch(self._plan.rows(step + self._steps_ahead)[held])
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
    """The rows of a split in the order they were packed, for evaluation; the same ones every time.

    Of several folders, the rows of one after the other: each row weighs the same, whatever the folders' weights.
    Where `max_batches` is not enough for the whole split, they begin at evenly spaced rows of it:
    its first rows alone would be one corner of the corpus. Otherwise the last batch is filled up
    with rows of [PAD] only, which weigh nothing in any metric.

    Yields:
      {"input_ids": int32[B, T]} with `sharding`.

    Raises:
      UserError: as `Loader`, all of it before the first batch is asked for.
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
        filled = np.full((end - first, manifest.row_length), manifest.special.pad, ids.dtype)
        filled[: len(ids)] = ids
        return filled

    def batches() -> Iterator[Batch]:
        try:
            for begin, following in zip(begins.tolist(), [*begins[1:].tolist(), len(rows)], strict=True):
                rows.prefetch(numbers(following, 0, batch_size))
                yield global_batch(functools.partial(read, begin), (batch_size, manifest.row_length), sharding)
        finally:
            rows.close()

    return batches()


def check_batch_size(batch_size: int, sharding: jax.sharding.NamedSharding) -> None:
    """Raises a UserError unless the mesh's batch axes divide `batch_size`."""
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
    """Builds {"input_ids": int32[B, T]} of `read(first, end)` -> rows first .. end-1 of it.

    `open_dataset` is asked only for what this host's devices hold, once for each distinct piece: devices
    along the tensor axis hold the same rows.
    """
    piece = functools.cache(lambda first, end: read(first, end).astype(np.int32))

    def of_device(index: tuple[slice, ...]) -> np.ndarray:
        first, end, _ = index[0].indices(shape[0])
        return piece(first, end)[:, index[1]]

    return {"input_ids": jax.make_array_from_callback(shape, sharding, of_device)}


@functools.lru_cache
def _held_rows(shape: tuple[int, int], sharding: jax.sharding.NamedSharding) -> np.ndarray:
    """Rows of a global batch that this host's devices hold, int64."""
    slices = {index[0].indices(shape[0]) for index in sharding.addressable_devices_indices_map(shape).values()}
    return np.unique(np.concatenate([np.arange(*each) for each in slices]))


class StepPrefetcher:
    """`.at(step)` of a function of the step, with the next steps computed in a thread meanwhile.

    What goes wrong in the thread is raised by `.at()` of the very step it happened in, and only if
    that step is asked for.
    """

    def __init__(self, make: Callable[[int], Batch]) -> None:
        self._make = make
        self._thread = futures.ThreadPoolExecutor(1, "batches")
        self._coming: dict[int, futures.Future[Batch]] = {}

    def at(self, step: int) -> Batch:
        assert step >= 0, step
        wanted = range(step, step + 1 + PREFETCHED_STEPS)
        for other in self._coming.keys() - set(wanted):  # the caller has jumped
            self._coming.pop(other).cancel()
        for each in wanted:
            if each not in self._coming:
                self._coming[each] = self._thread.submit(self._make, each)
        return self._coming.pop(step).result()

    def close(self) -> None:
        """Drops the steps not yet begun and waits for the one that is."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()
