"""Documents to rows: tokenised over a pool, put into rows and written in one stream.

Tokenising is the work, so it is what the processes share; its results are kept until the dataset is
complete. Packing walks the documents in order, across the borders of parts, so that the rows depend
on neither the number of processes nor an interruption. Neither holds more than a block or a window
of documents at a time.

The formats of rows are "packed" (see `pack_documents`: full rows, nothing dropped) and "electra" (see
`electra_examples`: one two-segment example a row, for those who want the original recipe).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

import electramed_jax
from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing import pack as packing
from electramed_jax.data.packing import token_files
from electramed_jax.data.packing.row_builder import ELECTRA, FORMATS, PACKED, PackingSpec, RowBuilder, SplitStats
from electramed_jax.data.packing.shard_writer import ShardWriter, place
from electramed_jax.data.packing.token_files import Tokens
from electramed_jax.data.parallel import build_dir, process_pool
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

ROWS_PER_SHARD = 65_536
WINDOW_ROWS = 16_384  # rows' worth of tokens packed at a time
UNKNOWN_WARNING = 0.01  # a vocabulary trained on the corpus itself leaves about 1e-5


def pack(
    documents_dir: str,
    vocab_path: str,
    output_dir: str,
    *,
    row_length: int,
    format: str = PACKED,
    name: str = "pubmed",
    rows_per_shard: int = ROWS_PER_SHARD,
    lower_case: bool = True,
    workers: int | None = None,
    beam: BeamRunner | None = None,
) -> manifest.Manifest:
    """Makes a packed dataset (see `manifest`) of a documents folder; returns its manifest.

    A finished dataset of the same request is left as it is.

    Args:
      format: one of FORMATS.
      beam: has a pipeline do the work instead of `workers` processes here (see `build_rows_beam`).

    Raises:
      UserError: unusable documents or vocabulary, an empty training split, an output folder that
        holds another dataset.
    """
    packing.check_row_length(row_length)
    if format not in FORMATS:
        raise UserError(f"format={format!r}; wanted one of {', '.join(FORMATS)}")
    if beam is not None:
        beam.check([documents_dir, output_dir])
    account = corpus_dir.read_documents_info(documents_dir)
    tokens = vocab.read_vocab(vocab_path)
    request = {
        "vocab_sha256": vocab.sha256(vocab_path),
        "row_length": row_length,
        "format": format,
        "name": name,
        "rows_per_shard": rows_per_shard,
        "lower_case": lower_case,
        "code_version": electramed_jax.__version__,
        "sources": account["inputs"],
    }
    if files.exists(files.join(output_dir, manifest.MANIFEST_FILE)):
        return _finished(output_dir, request)
    special = vocab.special_ids(tokens)
    work = build_dir.open_build_dir(output_dir, request, lambda found: found.startswith(f"{name}-"))
    own_vocab = files.join(output_dir, vocab.VOCAB_FILE)
    with files.atomic_write(own_vocab) as file:
        file.write(files.read_bytes(vocab_path))

    order = PackingSpec(own_vocab, lower_case, row_length, format, name, rows_per_shard, WINDOW_ROWS * row_length)
    parts = len(account["inputs"])
    if beam is None:
        built = _run(workers, documents_dir, parts, work, output_dir, order)
    else:
        from electramed_jax.data.packing import build_beam as build_rows_beam

        built = build_rows_beam.run(beam, documents_dir, parts, work, output_dir, order)
    splits, histogram, wordless = {}, Counter(), 0
    frequency: np.ndarray | None = None
    for split, figures, shards in built:
        if frequency is None:
            if not figures.rows:
                raise UserError(f"{documents_dir}: no text to train on; prepare more documents")
            frequency = figures.smoothed(special)
        _warn_of_unknown(figures, special, split)
        splits[split] = figures.split(shards, row_length, frequency)
        histogram += figures.histogram
        wordless += figures.wordless
    dropped = Counter(account["dropped"]) + Counter({"no_tokens": wordless})
    result = manifest.Manifest(
        row_length=row_length,
        dtype=manifest.dtype_for(len(tokens)),
        vocab_size=len(tokens),
        vocab_sha256=request["vocab_sha256"],
        lower_case=lower_case,
        special=special,
        splits=splits,
        sources=account["inputs"],
        dropped=dict(dropped),
        length_histogram={str(end): histogram[end] for end in sorted(histogram)},
        code_version=electramed_jax.__version__,
        name=name,
        format=format,
    )
    manifest.write_manifest(output_dir, result)
    build_dir.close_build_dir(output_dir)
    return result


def _run(
    workers: int | None, documents_dir: str, parts: int, work: str, output_dir: str, order: PackingSpec
) -> Iterator[tuple[str, SplitStats, tuple[manifest.Shard, ...]]]:
    """Each split, the training split first: its figures, and its shards in place."""
    maker = RowBuilder.of(order)
    tasks = [
        (corpus_dir.part_path(documents_dir, split, part), order, work, split, part)
        for split in corpus_dir.SPLITS
        for part in range(parts)
    ]
    staged = process_pool.run_tasks(_tokenize, tasks, workers, "tokenising")
    for split in corpus_dir.SPLITS:
        figures, shards = _pack_split(itertools.islice(staged, parts), maker, order, files.join(work, f"rows-{split}"))
        yield split, figures, place(shards, output_dir, order.name, split)


def _finished(output_dir: str, request: dict[str, Any]) -> manifest.Manifest:
    """The dataset that stands in `output_dir`, if it is the one asked for."""
    there = manifest.read_manifest(output_dir)
    for key, wanted in request.items():
        if key != "rows_per_shard" and (got := getattr(there, key)) != wanted:
            shown = "other documents" if key == "sources" else f"{key}={got!r}, not {wanted!r}"
            raise UserError(f"{output_dir}: holds another dataset ({shown}); choose another --output, or remove it")
    build_dir.close_build_dir(output_dir)
    console.say(f"{output_dir}: already packed from the same documents; nothing to do")
    return there


def _tokenize(part: str, order: PackingSpec, work: str, split: str, number: int) -> str:
    """Tokenises one part into a scratch file; returns its path."""
    path = files.join(work, f"tokens-{split}-{number:05d}")
    if not files.exists(path):
        tokenizer = _tokenizer(order.vocab_path, order.lower_case)
        ends = packing.SentenceEnds.of(tokenizer.tokens) if order.format == ELECTRA else None
        token_files.write(path, token_files.tokenize(corpus_dir.read_part(part), tokenizer, ends))
    return path


_loaded: dict[tuple[str, bool], Tokenizer] = {}


def _tokenizer(vocab_path: str, lower_case: bool) -> Tokenizer:
    """One tokenizer per process: it gets faster with the words it has seen."""
    key = (vocab_path, lower_case)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = Tokenizer(vocab_path, lower_case)
    return _loaded[key]


def _pack_split(
    staged: Iterator[str], maker: RowBuilder, order: PackingSpec, scratch: str
) -> tuple[SplitStats, list[manifest.Shard]]:
    figures = SplitStats.none(maker.vocab_size)
    blocks = (_counted(block, figures) for path in staged for block in token_files.read(path))
    with ShardWriter(scratch, order.row_length, maker.dtype, order.rows_per_shard) as writer:
        for tokens in token_files.windows(blocks, order.window_tokens):
            writer.write(maker.rows(tokens, figures))
    return figures, writer.shards


def _counted(block: Tokens, figures: SplitStats) -> Tokens:
    """The documents that have a token; all are counted."""
    figures.add_documents(block.lengths)
    return block.without_wordless()


def _warn_of_unknown(built: SplitStats, special: SpecialIds, split: str) -> None:
    unknown = int(built.counts[special.unk]) / max(1, int(built.counts.sum()))
    if unknown > UNKNOWN_WARNING:
        console.say(
            f"warning: {unknown:.1%} of the {split} tokens are [UNK]; is this the vocabulary of "
            "such text, and is --cased given exactly where it was trained so?"
        )
