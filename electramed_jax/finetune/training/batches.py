"""Examples to batches: packed into rows, in an order that is arithmetic.

A training batch holds `batch_size` examples, whatever rows they take: several in a row, one after the other, as
documents are in pre-training. That costs a third or less of an example a row, and gives the same numbers. The rows of a
batch are always as many as the fullest batch of the run needs, so that one compiled step serves all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.task.task import IGNORE, SEQUENCE, SOFTMAX, SPAN, TOKEN, Examples, Head


class Place(NamedTuple):
    """Where an example stands: tokens start .. start+n-1 of a row."""

    example: int
    row: int
    start: int


class Batch(NamedTuple):
    """Packed rows.

    Attributes:
      input_ids: int32[R, T].
      labels: int32[R, T] for a softmax over labels, IGNORE where nothing is asked; float32[R, T, K] for other losses,
        likewise; for spans float32[R, T, 2], 1 where an answer begins and where it ends, 0 else.
      places: of the examples.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    places: list[Place]


def pack(lengths: Sequence[int], row_length: int) -> list[tuple[int, int]]:
    """(row, start) of each, the longest first into the row it fills best; as few rows as that gives."""
    by_room: list[list[int]] = [[] for _ in range(row_length + 1)]  # open rows by the tokens left in them
    rows, placed = 0, [(0, 0)] * len(lengths)
    for number in sorted(range(len(lengths)), key=lambda n: (-lengths[n], n)):
        length = lengths[number]
        room = next((room for room in range(length, row_length) if by_room[room]), row_length)
        if room == row_length:
            row, rows = rows, rows + 1
        else:
            row = by_room[room].pop()
        placed[number] = (row, row_length - room)
        by_room[room - length].append(row)
    return placed


def collate(examples: Examples, chosen: Sequence[int], head: Head, rows: int, row_length: int, pad: int) -> Batch:
    """A batch of these examples, which have to fit into so many rows."""
    placed = pack([len(examples.input_ids[number]) for number in chosen], row_length)
    places = [Place(number, row, start) for number, (row, start) in zip(chosen, placed, strict=True)]
    return lay_out(examples, places, head, rows, row_length, pad)


def lay_out(examples: Examples, places: list[Place], head: Head, rows: int, row_length: int, pad: int) -> Batch:
    input_ids = np.full((rows, row_length), pad, np.int32)
    labels = _no_labels(head, rows, row_length)
    for number, row, start in places:
        ids, wanted = examples.input_ids[number], examples.labels[number]
        input_ids[row, start : start + len(ids)] = ids
        if head.kind == TOKEN:
            labels[row, start : start + len(ids)] = wanted
        elif head.kind == SPAN:
            labels[row, start + wanted[0], 0] = labels[row, start + wanted[1], 1] = 1.0
        else:
            labels[row, start] = wanted
    return Batch(input_ids, labels, places)


def _no_labels(head: Head, rows: int, row_length: int) -> np.ndarray:
    if head.kind == SPAN:
        return np.zeros((rows, row_length, 2), np.float32)
    if head.loss == SOFTMAX:
        return np.full((rows, row_length), IGNORE, np.int32)
    return np.full((rows, row_length, head.size), IGNORE, np.float32)


def rows_needed(examples: Examples, plan: EpochSampler, total_steps: int, row_length: int) -> int:
    """Rows of the fullest batch of a run."""
    lengths = np.array([len(ids) for ids in examples.input_ids])
    batches = (lengths[plan.rows(step)].tolist() for step in range(total_steps))
    return max(1 + max(row for row, _ in pack(batch, row_length)) for batch in batches)


def measured(examples: Examples, head: Head, rows: int, row_length: int, pad: int) -> Iterator[Batch]:
    """Every example once, in as few batches of `rows` rows as packing all of them together gives."""
    placed = pack([len(ids) for ids in examples.input_ids], row_length)
    by_batch: dict[int, list[Place]] = {}
    for number, (row, start) in enumerate(placed):
        by_batch.setdefault(row // rows, []).append(Place(number, row % rows, start))
    for batch in sorted(by_batch):
        yield lay_out(examples, by_batch[batch], head, rows, row_length, pad)


def unpacked(logits_RTK: np.ndarray, batch: Batch, examples: Examples, head: Head) -> Iterator[tuple[int, np.ndarray]]:
    """(example, its logits in the form of `task.Outputs`)."""
    for number, row, start in batch.places:
        if head.kind == SEQUENCE:
            yield number, logits_RTK[row, start]
        else:
            yield number, logits_RTK[row, start : start + len(examples.input_ids[number])]


def placed_on(batch: Batch, rows: NamedSharding) -> dict[str, jax.Array]:
    """The arrays on the devices. Every process has the whole batch and hands out its part."""
    return {
        name: jax.make_array_from_callback(array.shape, rows, array.__getitem__)
        for name, array in (("input_ids", batch.input_ids), ("labels", batch.labels))
    }
