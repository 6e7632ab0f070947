"""`build_rows` as an Apache Beam pipeline: the same functions, the same shards byte for byte.

Where windows of documents begin depends on the documents' lengths alone, and where shards begin on how many
rows each window has. So tokenising takes a part each, packing a window each and writing a shard each,
in any order; between them one worker looks at the lengths of a split, and one at the rows of its windows.

What is large lies in the scratch folder: the tokens of a part, the rows of a window.
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
from electramed_jax.data.parallel.beam_runner import BeamRunner, report_user_errors
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

OfSplit = tuple[str, Any]
Span = tuple[int, int, int, int]  # part, byte at which a block of its tokens begins, start and stop of documents in it
Run = tuple[int, int, int]  # window, start and stop of rows in it
_LENGTH = np.dtype("<u4")  # of a document, in tokens


def run(
    runner: BeamRunner, documents_dir: str, parts: int, work: str, output_dir: str, order: PackingSpec
) -> Iterator[tuple[str, SplitStats, tuple[manifest.Shard, ...]]]:
    """Each split, the training split first: its figures, and its shards in place."""

    def build(pipeline: beam.Pipeline) -> beam.PCollection:
        return _build(pipeline, documents_dir, parts, work, output_dir, order)

    figures = {split: SplitStats.none(RowBuilder.of(order).vocab_size) for split in corpus_dir.SPLITS}
    shards: dict[str, list[manifest.Shard]] = {split: [] for split in corpus_dir.SPLITS}
    for split, kind, value in runner.run(work, "rows", build):
        if kind == "figures":
            figures[split] += SplitStats.of_json(value)
        else:
            shards[split].append(manifest.Shard(**value))
    for split in corpus_dir.SPLITS:
        yield split, figures[split], tuple(sorted(shards[split], key=lambda shard: shard.file))


def _build(
    pipeline: beam.Pipeline, documents_dir: str, parts: int, work: str, output_dir: str, order: PackingSpec
) -> beam.PCollection:
    windows = (
        pipeline
        | "parts" >> beam.Create([(split, part) for split in corpus_dir.SPLITS for part in range(parts)])
        | "spread parts" >> beam.Reshuffle()
        | "tokenise" >> beam.ParDo(_Tokenize(work, documents_dir, order)).with_output_types(OfSplit)
        | "lengths of a split" >> beam.GroupByKey()
        | "windows" >> _of_split(_windows, work, order).with_outputs("figures", main="spans")
    )
    packed = (
        windows.spans
        | "spread windows" >> beam.Reshuffle()
        | "pack" >> _of_split(_pack, work, order).with_outputs("figures", main="rows")
    )
    shards = (
        packed.rows
        | "rows of a split" >> beam.GroupByKey()
        | "shards" >> _of_split(_shards, work, order)
        | "spread shards" >> beam.Reshuffle()
        | "write" >> beam.FlatMap(_write, work, output_dir, order)
    )
    figures = (
        (windows.figures, packed.figures)
        | "all figures" >> beam.Flatten()
        | "figures of a split" >> beam.CombinePerKey(_sum)
        | "named" >> beam.MapTuple(_named)
    )
    return (shards, figures) | "results" >> beam.Flatten()


def _of_split(function: Any, *args: Any) -> beam.PTransform:
    return beam.FlatMap(function, *args).with_output_types(OfSplit)


class _Tokenize(beam.DoFn):
    """(split, part) -> (split, (part, [(byte at which a block of its tokens begins, lengths of the documents)]))."""

    def __init__(self, work: str, documents_dir: str, order: PackingSpec):
        self._work, self._documents_dir, self._order = work, documents_dir, order

    def setup(self) -> None:
        # One for each thread of a worker, and kept: it gets faster with the words it has seen.
        self._tokenizer = Tokenizer(self._order.vocab_path, self._order.lower_case)

    def process(self, of_split: tuple[str, int]) -> Iterator[OfSplit]:
        yield from _tokenize(of_split, self._work, self._documents_dir, self._tokenizer, self._order.format)


@report_user_errors
def _tokenize(
    of_split: tuple[str, int], work: str, documents_dir: str, tokenizer: Tokenizer, format: str
) -> Iterator[OfSplit]:
    split, part = of_split
    ends = pack.SentenceEnds.of(tokenizer.tokens) if format == ELECTRA else None
    documents = corpus_dir.read_part(corpus_dir.part_path(documents_dir, split, part))
    blocks = token_files.write(_tokens(work, split, part), token_files.tokenize(documents, tokenizer, ends))
    yield split, (part, [(block.offset, block.lengths.astype(_LENGTH).tobytes()) for block in blocks])


@report_user_errors
def _windows(of_split: tuple[str, Iterable], work: str, order: PackingSpec) -> Iterator[Any]:
    """(split, (number, its Spans)) of each window; and the figures of the documents."""
    split, parts = of_split
    places, lengths = [], []
    for part, blocks in sorted(parts):
        for offset, of_block in blocks:
            places.append((part, offset))
            lengths.append(np.frombuffer(of_block, _LENGTH).astype(np.int64))
    figures = SplitStats.none(RowBuilder.of(order).vocab_size)
    figures.add_documents(np.concatenate([np.empty(0, np.int64), *lengths]))
    yield beam.pvalue.TaggedOutput("figures", (split, figures.as_json()))
    some = (of_block[of_block > 0] for of_block in lengths)
    for number, spans in enumerate(token_files.window_spans(some, order.window_tokens)):
        yield split, (number, [(*places[block], start, stop) for block, start, stop in spans])


@report_user_errors
def _pack(of_split: tuple[str, tuple[int, list[Span]]], work: str, order: PackingSpec) -> Iterator[Any]:
    """(split, (number, rows)) of a window, whose rows are in a file then; and their figures."""
    split, (number, spans) = of_split
    blocks = [
        token_files.read_block(_tokens(work, split, part), offset).without_wordless().part(start, stop)
        for part, offset, start, stop in spans
    ]
    maker = RowBuilder.of(order)
    figures = SplitStats.none(maker.vocab_size)
    rows = maker.rows(token_files.join(blocks), figures)
    with RowWriter(_rows(work, split, number), order.row_length, maker.dtype) as writer:
        writer.write(rows)
    yield split, (number, len(rows))
    yield beam.pvalue.TaggedOutput("figures", (split, figures.as_json()))


@report_user_errors
def _shards(of_split: tuple[str, Iterable[tuple[int, int]]], work: str, order: PackingSpec) -> Iterator[OfSplit]:
    """(split, (file, its Runs)) of each shard."""
    split, windows = of_split
    numbers, counts = zip(*sorted(windows), strict=True)
    ends = np.cumsum(counts)
    firsts = range(0, int(ends[-1]), order.rows_per_shard)
    for shard, first in enumerate(firsts):
        end = min(first + order.rows_per_shard, int(ends[-1]))
        runs: list[Run] = []
        while first < end:
            at = int(np.searchsorted(ends, first, side="right"))
            begin = int(ends[at]) - counts[at]
            stop = min(end, int(ends[at]))
            runs.append((numbers[at], first - begin, stop - begin))
            first = stop
        yield split, (manifest.shard_name(order.name, split, shard, len(firsts)), runs)


@report_user_errors
def _write(
    of_split: tuple[str, tuple[str, list[Run]]], work: str, output_dir: str, order: PackingSpec
) -> Iterator[Any]:
    """(split, "shard", a manifest.Shard as JSON), which is in place then."""
    split, (name, runs) = of_split
    dtype = RowBuilder.of(order).dtype
    with RowWriter(files.join(work, name), order.row_length, dtype) as writer:
        for window, start, stop in runs:
            writer.write(RowFile(_rows(work, split, window), order.row_length, dtype)[start:stop])
    files.move(writer.path, files.join(output_dir, name))
    yield split, "shard", dataclasses.asdict(manifest.Shard(name, writer.rows, writer.sha256))


def _sum(figures: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return functools.reduce(operator.iadd, map(SplitStats.of_json, figures)).as_json()


def _named(split: str, figures: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    return split, "figures", figures


def _tokens(work: str, split: str, part: int) -> str:
    return files.join(work, f"tokens-{split}-{part:05d}")


def _rows(work: str, split: str, window: int) -> str:
    return files.join(work, f"window-{split}-{window:06d}")
