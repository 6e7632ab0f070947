"""Batches of a packed dataset as global `jax.Array`s: `.at(step)`, a function of the step.

`Loader` feeds training in the order of `data/plan.py`; `ordered_batches` feeds an evaluation the
same rows in the same order every time. Each host reads only the rows that its own devices hold.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent import futures

import jax
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data import manifest as manifests
from electramed_jax.data.plan import Plan
from electramed_jax.data.rows import SplitRows

Batch = dict[str, jax.Array]

PREFETCHED_STEPS = 2


class Loader:
    """Training batches of one split.

    Args:
      directory: what `electramed pack` wrote, local or remote.
      split: "train" as a rule.
      batch_size: rows of the global batch.
      seed: of the order of rows.
      sharding: a NamedSharding of [B, T] arrays, split over B by the mesh's batch axes.
      check_shards: first read every shard whole and compare its SHA-256 with the manifest's. Each
        row that is fed has its CRC checked in any case.

    Attributes:
      manifest: the dataset's Manifest.
      rows_in_epoch: rows in the split.

    Raises:
      UserError: no such split, an empty split, a batch size that the mesh cannot share out.
    """

    def __init__(
        self,
        directory: str,
        split: str,
        batch_size: int,
        seed: int,
        sharding: jax.sharding.NamedSharding,
        *,
        check_shards: bool = False,
    ) -> None:
        check_batch_size(batch_size, sharding)
        self.manifest = manifests.read(directory)
        self._rows = SplitRows(directory, self.manifest, split)
        if check_shards:
            manifests.verify_shards(directory, self.manifest)
        self.rows_in_epoch = len(self._rows)
        self._plan = Plan(self.rows_in_epoch, batch_size, seed)
        self._sharding = sharding
        self._prefetched = Prefetched(self._read)

    def at(self, step: int) -> Batch:
        """{"input_ids": int32[B, T]} of `step` (from 0); the next two steps are read meanwhile.

        Steps may be asked for in any order; in sequence is fast.

        Raises:
          UserError: if a row of this batch cannot be read or fails its checksum.
        """
        return self._prefetched.at(step)

    def epoch(self, step: int) -> float:
        """Epochs completed when `step` begins."""
        return self._plan.epoch(step)

    def close(self) -> None:
        self._prefetched.close()
        self._rows.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int) -> Batch:
        numbers = self._plan.rows(step)
        return global_batch(
            lambda first, end: self._rows[numbers[first:end]],
            (self._plan.batch_size, self.manifest.row_length),
            self._sharding,
        )


def ordered_batches(
    directory: str,
    split: str,
    batch_size: int,
    sharding: jax.sharding.NamedSharding,
    max_batches: int | None = None,
) -> Iterator[Batch]:
    """The rows of a split in the order they were packed, for evaluation; the same ones every time.

    Where `max_batches` is not enough for the whole split, they begin at evenly spaced rows of it:
    its first rows alone would be one corner of the corpus. Otherwise the last batch is filled up
    with rows of [PAD] only, which weigh nothing in any metric.

    Yields:
      {"input_ids": int32[B, T]} with `sharding`.

    Raises:
      UserError: as `Loader`, all of it before the first batch is asked for.
    """
    check_batch_size(batch_size, sharding)
    manifest = manifests.read(directory)
    rows = SplitRows(directory, manifest, split)
    begins = np.arange(0, len(rows), batch_size)
    if max_batches is not None and max_batches * batch_size < len(rows):
        begins = np.arange(max_batches) * len(rows) // max_batches

    def read(begin: int, first: int, end: int) -> np.ndarray:
        ids = rows[np.arange(begin + first, min(begin + end, len(rows)))]
        filled = np.full((end - first, manifest.row_length), manifest.special.pad, ids.dtype)
        filled[: len(ids)] = ids
        return filled

    def batches() -> Iterator[Batch]:
        try:
            for begin in begins.tolist():
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

    `read` is asked only for what this host's devices hold, once for each distinct piece: devices
    along the tensor axis hold the same rows.
    """
    piece = functools.cache(lambda first, end: read(first, end).astype(np.int32))

    def of_device(index: tuple[slice, ...]) -> np.ndarray:
        first, end, _ = index[0].indices(shape[0])
        return piece(first, end)[:, index[1]]

    return {"input_ids": jax.make_array_from_callback(shape, sharding, of_device)}


class Prefetched:
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
