"""Builds the splits of a packed dataset in an Apache Beam pipeline; the shards equal those of `build` byte for byte.

Where windows of documents begin depends only on the lengths of the documents, and where shards begin only on
the number of rows of each window. So the pipeline tokenizes part by part, packs window by window and writes
shard by shard, in any order. Between these steps one worker reads the lengths of a split, and one the row counts
of its windows.

Large data is in the scratch folder: the tokens of a part, the rows of a window.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.common.storage.tfrecord import RowFile, RowWriter
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing import pack, token_files
from electramed_jax.data.packing.row_builder import ELECTRA, PackingSpec, RowBuilder, SplitStats
from electramed_jax.data.parallel.beam_runner import BeamRunner, report_user_errors, split_outputs
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

KeyedBySplit = tuple[str, Any]
# (part, first byte of a block of its tokens, start and stop of the documents in the block)
DocumentSpan = tuple[int, int, int, int]
RowSpan = tuple[int, int, int]  # (window, start and stop of the rows in it)
_LENGTH = np.dtype("<u4")  # tokens of a document
_STATS, _SHARD = "figures", "shard"  # kinds of results in rows.json of the scratch folder


def build_splits(
    runner: BeamRunner, documents_dir: str, num_parts: int, work: str, output_dir: str, spec: PackingSpec
) -> Iterator[tuple[str, SplitStats, tuple[manifest.Shard, ...]]]:
    """Yields each split, the training split first, with its statistics and its shards in `output_dir`."""

    def build(pipeline: beam.Pipeline) -> beam.PCollection:
        return _build_pipeline(pipeline, documents_dir, num_parts, work, output_dir, spec)

    vocab_size = RowBuilder.from_spec(spec).vocab_size
    stats = {split: SplitStats.zeros(vocab_size) for split in corpus_dir.SPLITS}
    shards: dict[str, list[manifest.Shard]] = {split: [] for split in corpus_dir.SPLITS}
    for split, kind, value in runner.run(work, "rows", build):
        if kind == _STATS:
            stats[split] += SplitStats.from_json(value)
        else:
            shards[split].append(manifest.Shard(**value))
    for split in corpus_dir.SPLITS:
        yield split, stats[split], tuple(sorted(shards[split], key=lambda shard: shard.file))


def _build_pipeline(
    pipeline: beam.Pipeline, documents_dir: str, num_parts: int, work: str, output_dir: str, spec: PackingSpec
) -> beam.PCollection:
    splitting = (
        pipeline
        | "parts" >> beam.Create([(split, part) for split in corpus_dir.SPLITS for part in range(num_parts)])
        | "spread parts" >> beam.Reshuffle()
        | "tokenize" >> beam.ParDo(_Tokenize(work, documents_dir, spec)).with_output_types(KeyedBySplit)
        | "lengths of a split" >> beam.GroupByKey()
        | "windows" >> beam.FlatMap(_windows, work, spec)
    )
    windows = split_outputs(splitting, "windows", {"spans": KeyedBySplit, "stats": KeyedBySplit})
    packing = windows["spans"] | "spread windows" >> beam.Reshuffle() | "pack" >> beam.FlatMap(_pack, work, spec)
    packed = split_outputs(packing, "pack", {"rows": KeyedBySplit, "stats": KeyedBySplit})
    shards = (
        packed["rows"]
        | "rows of a split" >> beam.GroupByKey()
        | "shards" >> _flat_map(_shards, work, spec)
        | "spread shards" >> beam.Reshuffle()
        | "write" >> beam.FlatMap(_write, work, output_dir, spec)
    )
    stats = (
        (windows["stats"], packed["stats"])
        | "all statistics" >> beam.Flatten()
        | "statistics of a split" >> beam.CombinePerKey(_sum_stats)
        | "named" >> beam.MapTuple(_as_result)
    )
    return (shards, stats) | "results" >> beam.Flatten()


def _flat_map(function: Any, *args: Any) -> Any:  # Any: only beam.ParDo, which FlatMap returns, has with_outputs
    return beam.FlatMap(function, *args).with_output_types(KeyedBySplit)


class _Tokenize(beam.DoFn):
    """(split, part) -> (split, (part, [(first byte of a block of its tokens, lengths of its documents)]))."""

    def __init__(self, work: str, documents_dir: str, spec: PackingSpec):
        self._work, self._documents_dir, self._spec = work, documents_dir, spec

    def setup(self) -> None:
        """Makes one tokenizer for each thread of a worker; it caches the ids of words, so it is kept."""
        spec = self._spec
        self._tokenizer = Tokenizer(spec.vocab_path, spec.lower_case, spec.keep_accents)

    def process(self, element: tuple[str, int]) -> Iterator[KeyedBySplit]:
        """Tokenizes a part into a scratch file."""
        yield from _tokenize(element, self._work, self._documents_dir, self._tokenizer, self._spec.format)


@report_user_errors
def _tokenize(
    element: tuple[str, int], work: str, documents_dir: str, tokenizer: Tokenizer, format: str
) -> Iterator[KeyedBySplit]:
    split, part = element
    ends = pack.SentenceEnds.from_vocab(tokenizer.tokens) if format == ELECTRA else None
    documents = corpus_dir.read_part(corpus_dir.part_path(documents_dir, split, part))
    blocks = token_files.write_blocks(_tokens_path(work, split, part), token_files.tokenize(documents, tokenizer, ends))
    yield split, (part, [(block.offset, block.lengths.astype(_LENGTH).tobytes()) for block in blocks])


@report_user_errors
def _windows(element: tuple[str, Iterable], _work: str, spec: PackingSpec) -> Iterator[Any]:
    """Yields the statistics of the documents and (split, (number, its DocumentSpans)) of each window, by output."""
    split, parts = element
    positions, lengths = [], []
    for part, blocks in sorted(parts):
        for offset, block_lengths in blocks:
            positions.append((part, offset))
            lengths.append(np.frombuffer(block_lengths, _LENGTH).astype(np.int64))
    stats = SplitStats.zeros(RowBuilder.from_spec(spec).vocab_size)
    stats.add_documents(np.concatenate([np.empty(0, np.int64), *lengths]))
    yield "stats", (split, stats.to_json())
    nonzero = (block_lengths[block_lengths > 0] for block_lengths in lengths)
    for number, spans in enumerate(token_files.window_spans(nonzero, spec.window_tokens)):
        yield "spans", (split, (number, [(*positions[block], start, stop) for block, start, stop in spans]))


@report_user_errors
def _pack(element: tuple[str, tuple[int, list[DocumentSpan]]], work: str, spec: PackingSpec) -> Iterator[Any]:
    """Writes the rows of a window to a scratch file; yields (split, (number, rows)) and their statistics, by output."""
    split, (number, spans) = element
    blocks = [
        token_files.read_block(_tokens_path(work, split, part), offset).drop_empty().slice(start, stop)
        for part, offset, start, stop in spans
    ]
    builder = RowBuilder.from_spec(spec)
    stats = SplitStats.zeros(builder.vocab_size)
    rows = builder.build(token_files.concatenate(blocks), stats)
    with RowWriter(_rows_path(work, split, number), spec.row_length, builder.dtype) as writer:
        writer.write(rows)
    yield "rows", (split, (number, len(rows)))
    yield "stats", (split, stats.to_json())


@report_user_errors
def _shards(element: tuple[str, Iterable[tuple[int, int]]], _work: str, spec: PackingSpec) -> Iterator[KeyedBySplit]:
    """Yields (split, (file, its RowSpans)) of each shard."""
    split, windows = element
    numbers, counts = zip(*sorted(windows), strict=True)
    ends = np.cumsum(counts)
    firsts = range(0, int(ends[-1]), spec.rows_per_shard)
    for shard, first in enumerate(firsts):
        end = min(first + spec.rows_per_shard, int(ends[-1]))
        spans: list[RowSpan] = []
        while first < end:
            window = int(np.searchsorted(ends, first, side="right"))
            begin = int(ends[window]) - counts[window]
            stop = min(end, int(ends[window]))
            spans.append((numbers[window], first - begin, stop - begin))
            first = stop
        yield split, (manifest.shard_name(spec.name, split, shard, len(firsts)), spans)


@report_user_errors
def _write(
    element: tuple[str, tuple[str, list[RowSpan]]], work: str, output_dir: str, spec: PackingSpec
) -> Iterator[Any]:
    """Writes a shard and moves it to `output_dir`; yields (split, _SHARD, its manifest.Shard as JSON)."""
    split, (name, spans) = element
    dtype = RowBuilder.from_spec(spec).dtype
    with RowWriter(files.join(work, name), spec.row_length, dtype) as writer:
        for window, start, stop in spans:
            writer.write(RowFile(_rows_path(work, split, window), spec.row_length, dtype)[start:stop])
    files.move(writer.path, files.join(output_dir, name))
    yield split, _SHARD, dataclasses.asdict(manifest.Shard(name, writer.rows, writer.sha256, writer.ends_sha256))


def _sum_stats(stats: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return functools.reduce(operator.iadd, map(SplitStats.from_json, stats)).to_json()


def _as_result(split: str, stats: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    return split, _STATS, stats


def _tokens_path(work: str, split: str, part: int) -> str:
    return files.join(work, f"tokens-{split}-{part:05d}")


def _rows_path(work: str, split: str, window: int) -> str:
    return files.join(work, f"window-{split}-{window:06d}")
