"""Runs the stages of `build` as an Apache Beam pipeline: the same functions, and byte for byte the same folder.

Reading and writing have one element per input. Between them, Beam groups keys by the slots of their hashes, as
`shuffle_files` does, and dropped rows by the number of their input. The lines of an input are in the scratch folder, so
neither Beam's shuffle nor the memory of a worker contains a whole input.

Elements are numbers and bytes; the bytes are arrays with the dtypes of `dedup` and `minhash`.
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
from electramed_jax.data.parallel.beam_runner import BeamRunner, report_user_errors, split_outputs

Rows = tuple[int, bytes]  # (slot or input, rows)
InputCounts = tuple[int, dict[str, Any]]  # (input, its counts of reading)
InputRows = tuple[
    int, tuple[Iterable[dict[str, Any]], Iterable[bytes]]
]  # (input, (its one element of counts, dropped rows))


def run(
    runner: BeamRunner,
    work: str,
    output_dir: str,
    sources: Sequence[Source],
    config: FilterConfig,
    index_path: str | None,
    near_duplicates: float | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Writes the parts; returns the counts of reading and of writing of each input, for `stats.corpus_stats`.

    Args:
      runner: runs the pipeline.
      work: scratch folder.
      output_dir: documents folder.
      sources: the inputs.
      config: what is kept.
      index_path: saved `decontaminate.EvaluationIndex`, if any.
      near_duplicates: similarity from which documents are dropped, or None.
    """
    build = functools.partial(_build, work, output_dir, sources, config, index_path, near_duplicates)
    results = sorted(runner.run(work, "documents", build))
    return [counts for _, counts, _ in results], [written for _, _, written in results]


def _build(
    work: str,
    output_dir: str,
    sources: Sequence[Source],
    config: FilterConfig,
    index_path: str | None,
    threshold: float | None,
    pipeline: beam.Pipeline,
) -> beam.PCollection:
    reading = (
        pipeline
        | "inputs" >> beam.Create(range(len(sources)))
        | "spread" >> beam.Reshuffle()
        | "read" >> beam.FlatMap(_read, work, sources, config, index_path)
    )
    read = split_outputs(reading, "read", {"keys": Rows, "links": Rows, "counts": InputCounts})
    full_text = config.read_options.full_text
    comparing = (
        (read["keys"], read["links"])
        | "group PMIDs" >> beam.CoGroupByKey()
        | "compare PMIDs" >> beam.FlatMap(_deduplicate_pmids, work, full_text)
    )
    by_pmid = split_outputs(comparing, "compare PMIDs", {"texts": Rows, "dropped": Rows})
    by_text = (
        by_pmid["texts"] | "group texts" >> beam.GroupByKey() | "compare texts" >> _flat_map(_deduplicate_texts, work)
    )
    dropped = [by_pmid["dropped"], by_text]
    if threshold is not None:
        rows = minhash.rows_per_band(threshold)
        by_band = (
            _join_inputs("left", read["counts"], dropped)
            | "sign" >> _flat_map(_write_signatures, work, rows)
            | "group signatures" >> beam.GroupByKey()
            | "compare signatures" >> _flat_map(_compare_signatures, work, threshold)
        )
        dropped.append(by_band)
    with_articles = (
        read["counts"]
        | "articles of an input" >> beam.Map(_num_articles)
        | "all inputs" >> beam.GroupByKey()
        | "any articles" >> beam.FlatMap(_any_articles).with_output_types(tuple[int, bool])
    )
    return (
        (read["counts"], _flatten("kept", dropped), with_articles)
        | "kept: by input" >> beam.CoGroupByKey()
        | "write" >> beam.FlatMap(_write, work, output_dir)
    )


def _flat_map(function: Any, *args: Any) -> beam.ParDo:
    return beam.FlatMap(function, *args).with_output_types(Rows)


def _join_inputs(name: str, counts: beam.PCollection, dropped: Sequence[beam.PCollection]) -> beam.PCollection:
    """Groups by input: (number, (counts of the input, all its dropped rows))."""
    return (counts, _flatten(name, dropped)) | f"{name}: by input" >> beam.CoGroupByKey()


def _flatten(name: str, dropped: Sequence[beam.PCollection]) -> beam.PCollection:
    return dropped | f"{name}: losses" >> beam.Flatten()


@report_user_errors
def _read(
    number: int, work: str, sources: Sequence[Source], config: FilterConfig, index_path: str | None
) -> Iterator[Any]:
    """Yields ("keys" or "links", those of one input by slot), then ("counts", its counts)."""
    input_stats, pending = InputStats(), [np.empty(0, dedup.KEY_DTYPE)]
    for batch, links in stages.filter_input(work, number, sources[number], config, index_path, input_stats):
        for rows in _group_by_slot(links, stages.link_slots(links)):
            yield "links", rows
        pending.append(batch)
        if sum(map(len, pending)) >= shuffle_files.ROWS_AT_ONCE:
            keys, pending = np.concatenate(pending), pending[:1]
            yield from _named("keys", _group_by_slot(keys, stages.key_slots(keys)))
    keys = np.concatenate(pending)
    yield from _named("keys", _group_by_slot(keys, stages.key_slots(keys)))
    yield "counts", (number, input_stats.to_json())


@report_user_errors
def _deduplicate_pmids(
    group: tuple[int, tuple[Iterable[bytes], Iterable[bytes]]], _work: str, full_text: str
) -> Iterator[Any]:
    """Yields ("texts", text keys of the remaining documents by slot), then ("dropped", rows by input)."""
    keys, links = (
        _concatenate(pieces, dtype) for pieces, dtype in zip(group[1], (dedup.KEY_DTYPE, dedup.LINK_DTYPE), strict=True)
    )
    reasons = dedup.superseded_mask(keys)
    texts = dedup.remaining_texts(keys, reasons)
    yield from _named("texts", _group_by_slot(texts, shuffle_files.hash_slots(texts["text"])))
    yield from _named("dropped", _group_by_input(dedup.dropped_rows(keys, reasons)))
    if len(links):
        yield from _named("dropped", _group_by_input(dedup.linked_rows(links, keys, reasons, full_text)))


@report_user_errors
def _deduplicate_texts(group: tuple[int, Iterable[bytes]], _work: str) -> Iterator[Rows]:
    texts = _concatenate(group[1], dedup.TEXT_DTYPE)
    yield from _group_by_input(dedup.dropped_rows(texts[dedup.duplicate_mask(texts)], dedup.DUPLICATE))


@report_user_errors
def _write_signatures(input_rows: InputRows, work: str, rows: int) -> Iterator[Rows]:
    number, (_, dropped) = input_rows
    bands = minhash.PERMUTATIONS // rows
    for entries in build_near_duplicates.write_signatures(work, number, _dropped_reasons(dropped), rows):
        yield from _group_by_slot(entries, build_near_duplicates.band_slots(entries, bands))


@report_user_errors
def _compare_signatures(group: tuple[int, Iterable[bytes]], work: str, threshold: float) -> Iterator[Rows]:
    entries = _concatenate(group[1], minhash.BAND_DTYPE)
    yield from _group_by_input(build_near_duplicates.near_duplicate_rows(work, entries, threshold))


@report_user_errors
def _write(input_rows: tuple[int, tuple[Iterable, Iterable, Iterable]], work: str, output_dir: str) -> Iterator[Any]:
    """Writes the parts of one input; yields (input, counts of reading, counts of writing)."""
    number, (counts, dropped, with_articles) = input_rows
    (input_counts,), (any_articles,) = counts, with_articles
    written = stages.write_input(output_dir, work, number, _dropped_reasons(dropped), any_articles)
    yield number, input_counts, written


def _num_articles(counts: InputCounts) -> tuple[int, tuple[int, int]]:
    return 0, (counts[0], counts[1]["articles"])


def _any_articles(group: tuple[int, Iterable[tuple[int, int]]]) -> Iterator[tuple[int, bool]]:
    """Yields (input, whether any input has articles) for each input."""
    inputs = list(group[1])
    any_articles = any(articles for _, articles in inputs)
    return ((number, any_articles) for number, _ in inputs)


def _named(output: str, elements: Iterable[Rows]) -> Iterator[tuple[str, Rows]]:
    return ((output, rows) for rows in elements)


def _group_by_slot(rows: np.ndarray, slots: np.ndarray) -> Iterator[Rows]:
    return ((slot, slot_rows.tobytes()) for slot, slot_rows in shuffle_files.group_by_slot(rows, slots))


def _group_by_input(dropped: np.ndarray) -> Iterator[Rows]:
    return _group_by_slot(dropped, dropped["input"])


def _concatenate(pieces: Iterable[bytes], dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(b"".join(pieces), dtype)


def _dropped_reasons(pieces: Iterable[bytes]) -> dict[int, int]:
    """Returns {row: index in `dedup.REASONS`}."""
    dropped = _concatenate(pieces, dedup.DROPPED_DTYPE)
    return dedup.reasons_by_row(dropped)
