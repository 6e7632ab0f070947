"""The stages of `build_documents` as an Apache Beam pipeline: the same functions, the same folder byte for byte.

Reading and writing take an input each. Between them go keys, not texts: Beam groups these by the slots of
their hashes, as `shuffle` does, and losses by the number of their input. The lines of an input wait in the
scratch folder, so that neither Beam's shuffle nor a worker's memory ever holds an input.

Elements are numbers and bytes, the latter arrays of the dtypes of `dedup` and `near_duplicates`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np

from electramed_jax.data.corpus import build_near_duplicates, dedup, minhash, stages
from electramed_jax.data.corpus.filtering import FilterConfig, InputStats
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.parallel.beam_runner import BeamRunner, report_user_errors

Rows = tuple[int, bytes]  # of a slot, or of an input
OfInput = tuple[int, tuple[Iterable[dict[str, Any]], Iterable[bytes]]]  # its counts, of which there are one, and losses


def run(
    runner: BeamRunner,
    work: str,
    output_dir: str,
    inputs: Sequence[Source],
    choices: FilterConfig,
    index: str | None,
    near_duplicates: float | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the parts; what reading and writing counted of each input, for `documents_account.account`.

    Args:
      index: the path of the index of what is held out.
      near_duplicates: the similarity, or None.
    """
    build = functools.partial(_build, work, output_dir, inputs, choices, index, near_duplicates)
    of_inputs = sorted(runner.run(work, "documents", build))
    return [counts for _, counts, _ in of_inputs], [written for _, _, written in of_inputs]


def _build(
    work: str,
    output_dir: str,
    inputs: Sequence[Source],
    choices: FilterConfig,
    index: str | None,
    threshold: float | None,
    pipeline: beam.Pipeline,
) -> beam.PCollection:
    read = (
        pipeline
        | "inputs" >> beam.Create(range(len(inputs)))
        | "spread" >> beam.Reshuffle()
        | "read" >> _rows(_read, work, inputs, choices, index).with_outputs("counts", main="keys")
    )
    of_pmids = (
        read.keys
        | "group PMIDs" >> beam.GroupByKey()
        | "compare PMIDs" >> _rows(_decide_pmids, work).with_outputs("texts", main="losses")
    )
    of_texts = of_pmids.texts | "group texts" >> beam.GroupByKey() | "compare texts" >> _rows(_decide_texts, work)
    losses = [of_pmids.losses, of_texts]
    if threshold is not None:
        rows = minhash.rows_per_band(threshold)
        of_bands = (
            _inputs("left", read.counts, losses)
            | "sign" >> _rows(_sign, work, rows)
            | "group signatures" >> beam.GroupByKey()
            | "compare signatures" >> _rows(_resemble, work, threshold)
        )
        losses.append(of_bands)
    return _inputs("kept", read.counts, losses) | "write" >> beam.FlatMap(_write, work, output_dir)


def _rows(function: Any, *args: Any) -> beam.PTransform:
    return beam.FlatMap(function, *args).with_output_types(Rows)


def _inputs(name: str, counts: beam.PCollection, losses: Sequence[beam.PCollection]) -> beam.PCollection:
    """(number, (counts of the input, all its losses)) for every input."""
    together = losses | f"{name}: losses" >> beam.Flatten()
    return (counts, together) | f"{name}: by input" >> beam.CoGroupByKey()


@report_user_errors
def _read(number: int, work: str, inputs: Sequence[Source], choices: FilterConfig, index: str | None) -> Iterator[Any]:
    """Keys by slot; and the counts of the input."""
    tally, waiting = InputStats(), [np.empty(0, dedup.KEY_DTYPE)]
    for some in stages.filter_input(work, number, inputs[number], choices, index, tally):
        waiting.append(some)
        if sum(map(len, waiting)) >= shuffle_files.ROWS_AT_ONCE:
            keys, waiting = np.concatenate(waiting), waiting[:1]
            yield from _by_slot(keys, stages.slots_of_keys(keys))
    keys = np.concatenate(waiting)
    yield from _by_slot(keys, stages.slots_of_keys(keys))
    yield beam.pvalue.TaggedOutput("counts", (number, tally.as_json()))


@report_user_errors
def _decide_pmids(group: tuple[int, Iterable[bytes]], work: str) -> Iterator[Any]:
    """Losses by input; and the texts' keys of what is left, by slot."""
    keys = _joined(group[1], dedup.KEY_DTYPE)
    reasons = dedup.superseded_mask(keys)
    texts = dedup.texts_of(keys, reasons)
    for of_slot in _by_slot(texts, shuffle_files.hash_slots(texts["text"])):
        yield beam.pvalue.TaggedOutput("texts", of_slot)
    yield from _by_input(dedup.dropped_rows(keys, reasons))


@report_user_errors
def _decide_texts(group: tuple[int, Iterable[bytes]], work: str) -> Iterator[Rows]:
    texts = _joined(group[1], dedup.TEXT_DTYPE)
    yield from _by_input(dedup.dropped_rows(texts[dedup.duplicate_mask(texts)], dedup.DUPLICATE))


@report_user_errors
def _sign(of_input: OfInput, work: str, rows: int) -> Iterator[Rows]:
    number, (_, losses) = of_input
    bands = minhash.PERMUTATIONS // rows
    for entries in build_near_duplicates.sign(work, number, _lost(losses), rows):
        yield from _by_slot(entries, build_near_duplicates.slots_of_bands(entries, bands))


@report_user_errors
def _resemble(group: tuple[int, Iterable[bytes]], work: str, threshold: float) -> Iterator[Rows]:
    yield from _by_input(build_near_duplicates.resembling(work, _joined(group[1], minhash.BAND), threshold))


@report_user_errors
def _write(of_input: OfInput, work: str, output_dir: str) -> Iterator[tuple[int, dict, dict]]:
    number, (counts, losses) = of_input
    (of_reading,) = counts
    yield number, of_reading, stages.write_input(output_dir, work, number, _lost(losses))


def _by_slot(rows: np.ndarray, slots: np.ndarray) -> Iterator[Rows]:
    return ((slot, some.tobytes()) for slot, some in shuffle_files.group_by_slot(rows, slots))


def _by_input(losses: np.ndarray) -> Iterator[Rows]:
    return _by_slot(losses, losses["input"])


def _joined(pieces: Iterable[bytes], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(b"".join(pieces), dtype)


def _lost(losses: Iterable[bytes]) -> dict[int, int]:
    """{row: number of the reason}."""
    lost = _joined(losses, dedup.DROPPED_DTYPE)
    return dict(zip(lost["row"].tolist(), lost["reason"].tolist(), strict=True))
