"""Examples to batches, packed into rows.

A training batch holds `batch_size` examples in as few rows as packing gives, one example after the other, as documents
are in pre-training. This costs a third or less of one example per row, and gives the same numbers. A batch has one of a
few numbers of rows, for each of which a step is compiled: see `choose_sizes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.task.task import IGNORE, SOFTMAX, Examples, Head
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

MAX_SIZES = 4
# Batches that take about as long as to compile a step: 4 (base) to 50 (tiny) on a CPU, 100 to 400 on a GPU. On a CPU
# this keeps the padding of short runs below 15 %: 12 % in one epoch of NCBI-disease, 10 % in three.
WORTH_A_COMPILATION = {"cpu": 20}
OTHERWISE_WORTH = 100


class Placement(NamedTuple):
    """The place of an example of n tokens: tokens start .. start+n-1 of a row."""

    example: int
    row: int
    start: int


class Batch(NamedTuple):
    """Packed rows.

    Attributes:
      input_ids: int32[R, T].
      labels: int32[R, T] for a softmax over labels, IGNORE where no label is; float32[R, T, K] for other losses,
        likewise; float32[R, T, 2] for spans, 1 at the first and at the last token of an answer, else 0.
      placements: one for each example.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    placements: list[Placement]


def pack(lengths: Sequence[int], row_length: int) -> list[tuple[int, int]]:
    """Returns (row, start) for each length: best-fit decreasing, the longest first into the fullest row it fits."""
    rows_by_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # open rows by the tokens left in them
    num_rows, placed = 0, [(0, 0)] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[index]
        room = next((room for room in range(length, row_length) if rows_by_room[room]), row_length)
        if room == row_length:
            row, num_rows = num_rows, num_rows + 1
        else:
            row = rows_by_room[room].pop()
        placed[index] = (row, row_length - room)
        rows_by_room[room - length].append(row)
    return placed


def collate(
    examples: Examples, indices: Sequence[int], head: Head, sizes: Sequence[int], row_length: int, pad: int
) -> Batch:
    """Returns a batch of the examples at `indices`, with the smallest number of rows of `sizes` that they fit in."""
    placed = pack([len(examples.input_ids[index]) for index in indices], row_length)
    rows = next(size for size in sorted(sizes) if size > max(row for row, _ in placed))
    placements = [Placement(index, row, start) for index, (row, start) in zip(indices, placed, strict=True)]
    return place_examples(examples, placements, head, rows, row_length, pad)


def place_examples(
    examples: Examples, placements: list[Placement], head: Head, rows: int, row_length: int, pad: int
) -> Batch:
    """Returns a batch with each example at its placement."""
    input_ids = np.full((rows, row_length), pad, np.int32)
    labels = _no_labels(head, rows, row_length)
    for index, row, start in placements:
        ids, label = examples.input_ids[index], examples.labels[index]
        input_ids[row, start : start + len(ids)] = ids
        if head.kind == TOKEN:
            labels[row, start : start + len(ids)] = label
        elif head.kind == SPAN:
            labels[row, start + label[0], 0] = labels[row, start + label[1], 1] = 1.0
        else:
            labels[row, start] = label
    return Batch(input_ids, labels, placements)


def _no_labels(head: Head, rows: int, row_length: int) -> np.ndarray:
    if head.kind == SPAN:
        return np.zeros((rows, row_length, 2), np.float32)
    if head.loss == SOFTMAX:
        return np.full((rows, row_length), IGNORE, np.int32)
    return np.full((rows, row_length, head.size), IGNORE, np.float32)


def needed_rows(examples: Examples, sampler: EpochSampler, total_steps: int, row_length: int) -> np.ndarray:
    """Returns the number of rows that the batch of each step needs, int64[total_steps]."""
    lengths = np.array([len(ids) for ids in examples.input_ids])
    batches = (lengths[sampler.rows(step)].tolist() for step in range(total_steps))
    return np.array([1 + max(row for row, _ in pack(batch, row_length)) for batch in batches], np.int64)


def choose_sizes(needed: np.ndarray, multiple: int, platform: str) -> tuple[int, ...]:
    """Returns the numbers of rows that batches may have, the largest first.

    The largest is what the fullest batch needs. A smaller one is added where this saves at least the rows of
    `WORTH_A_COMPILATION` of the largest batches, at most `MAX_SIZES` in all.

    Args:
      needed: rows that each batch needs, at least 1 each.
      multiple: of which each size is one: the parts that rows are divided into.
      platform: of the devices, "cpu" or another.
    """
    worth = WORTH_A_COMPILATION.get(platform, OTHERWISE_WORTH)
    rounded = multiple * -(-needed // multiple)
    sizes: tuple[int, ...] = (int(rounded.max()),)

    def total(sizes: Sequence[int]) -> int:
        ordered = np.sort(np.array(sizes))
        return int(ordered[np.searchsorted(ordered, rounded)].sum())

    while len(sizes) < MAX_SIZES:
        others = [int(size) for size in np.unique(rounded) if size not in sizes]
        best = min(((total((*sizes, size)), size) for size in others), default=(total(sizes), 0))
        if total(sizes) - best[0] < worth * sizes[0]:
            break
        sizes = (*sizes, best[1])
    return tuple(sorted(sizes, reverse=True))


def eval_batches(examples: Examples, head: Head, rows: int, row_length: int, pad: int) -> Iterator[Batch]:
    """Yields batches of `rows` rows that hold every example once; all examples are packed together."""
    by_batch: dict[int, list[Placement]] = {}
    for index, (row, start) in enumerate(pack([len(ids) for ids in examples.input_ids], row_length)):
        by_batch.setdefault(row // rows, []).append(Placement(index, row % rows, start))
    for batch in sorted(by_batch):
        yield place_examples(examples, by_batch[batch], head, rows, row_length, pad)


def unpack_logits(
    logits_RTK: np.ndarray, batch: Batch, examples: Examples, head: Head
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (index of an example, its logits in the form of `task.Outputs`)."""
    for index, row, start in batch.placements:
        if head.kind == SEQUENCE:
            yield index, logits_RTK[row, start]
        else:
            yield index, logits_RTK[row, start : start + len(examples.input_ids[index])]


def to_devices(batch: Batch, sharding: NamedSharding) -> dict[str, jax.Array]:
    """Returns the arrays on the devices. Every process holds the whole batch and passes on its part."""
    return {
        name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        for name, array in (("input_ids", batch.input_ids), ("labels", batch.labels))
    }
