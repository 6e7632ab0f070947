"""Documents to rows: tokenised over a pool, put into rows and written in one stream.

Tokenising is the work, so it is what the processes share; its results are kept until the dataset is
complete. Packing walks the documents in order, across the borders of parts, so that the rows depend
on neither the number of processes nor an interruption. Neither holds more than a block or a window
of documents at a time.

The formats of rows are "packed" (see `pack`: full rows, nothing dropped) and "electra" (see
`electra_examples`: one two-segment example a row, for those who want the original recipe).
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

import electramed_jax
from electramed_jax.common import console, files
from electramed_jax.common.errors import UserError
from electramed_jax.data import corpus, electra_examples, manifest, pool, token_files, vocab, workspace
from electramed_jax.data import pack as packing
from electramed_jax.data.shards import ShardWriter, place
from electramed_jax.data.token_files import Tokens
from electramed_jax.data.tokenize import Tokenizer

ROWS_PER_SHARD = 65_536
WINDOW_ROWS = 16_384  # rows' worth of tokens packed at a time
PAIRED_FRACTION = 0.9
UNKNOWN_WARNING = 0.01  # a vocabulary trained on the corpus itself leaves about 1e-5
FORMATS = (PACKED, ELECTRA) = ("packed", "electra")


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
) -> manifest.Manifest:
    """Makes a packed dataset (see `manifest`) of a documents folder; returns its manifest.

    A finished dataset of the same request is left as it is.

    Args:
      format: one of FORMATS.

    Raises:
      UserError: unusable documents or vocabulary, an empty training split, an output folder that
        holds another dataset.
    """
    packing.check_row_length(row_length)
    if format not in FORMATS:
        raise UserError(f"format={format!r}; wanted one of {', '.join(FORMATS)}")
    account = corpus.read(documents_dir)
    tokens = vocab.read(vocab_path)
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
    if files.exists(files.join(output_dir, manifest.FILE)):
        return _finished(output_dir, request)
    plan = _Plan(row_length, format, tokens, vocab.special_ids(tokens), packing.SentenceEnds.of(tokens))
    work = workspace.open_in(output_dir, request, lambda found: found.startswith(f"{name}-"))
    own_vocab = files.join(output_dir, manifest.VOCAB_FILE)
    with files.atomic_write(own_vocab) as file:
        file.write(files.read_bytes(vocab_path))

    splits, histogram, wordless = {}, Counter(), 0
    frequency: np.ndarray | None = None  # of the training split, which is packed first
    parts = len(account["inputs"])
    tasks = [
        (corpus.part_path(documents_dir, split, part), own_vocab, lower_case, format == ELECTRA, work, split, part)
        for split in corpus.SPLITS
        for part in range(parts)
    ]
    staged = pool.run(_tokenize, tasks, workers, "tokenising")
    for split in corpus.SPLITS:
        of_split = itertools.islice(staged, parts)
        built = _pack_split(of_split, plan, work, split, rows_per_shard)
        if frequency is None:
            if not built.rows:
                raise UserError(f"{documents_dir}: no text to train on; prepare more documents")
            frequency = _smoothed(built.counts, plan.special)
        _warn_of_unknown(built, plan.special, split)
        shards = place(built.shards, output_dir, name, split)
        splits[split] = built.figures(shards, row_length, frequency)
        histogram += built.histogram
        wordless += built.wordless
    dropped = Counter(account["dropped"]) + Counter({"no_tokens": wordless})
    result = manifest.Manifest(
        row_length=row_length,
        dtype=plan.dtype,
        vocab_size=len(tokens),
        vocab_sha256=request["vocab_sha256"],
        lower_case=lower_case,
        special=plan.special,
        splits=splits,
        sources=account["inputs"],
        dropped=dict(dropped),
        length_histogram={str(end): histogram[end] for end in sorted(histogram)},
        code_version=electramed_jax.__version__,
        name=name,
        format=format,
    )
    manifest.write(output_dir, result)
    workspace.close(output_dir)
    return result


@dataclasses.dataclass(frozen=True)
class _Plan:
    row_length: int
    format: str
    tokens: list[str]
    special: vocab.SpecialIds
    sentence_ends: packing.SentenceEnds

    @property
    def dtype(self) -> str:
        return manifest.dtype_for(len(self.tokens))

    def packed(self, tokens: Tokens) -> packing.Packed:
        paired = tokens.draws < np.uint64(PAIRED_FRACTION * 2**64)
        return packing.pack(tokens.ids, tokens.lengths, paired, self.row_length, self.special, self.sentence_ends)

    def examples(self, tokens: Tokens) -> packing.Packed:
        randoms = map(random.Random, tokens.draws.tolist())
        return electra_examples.examples(
            tokens.ids, tokens.sentences, tokens.sentence_counts, randoms, self.row_length, self.special
        )


@dataclasses.dataclass
class _Built:
    """One split as it grows."""

    counts: np.ndarray  # int64[V], how often each id occurs in the rows; 0 of [PAD] [CLS] [SEP]
    shards: list[manifest.Shard] = dataclasses.field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    documents: int = 0
    split_documents: int = 0
    dropped_tokens: int = 0
    packed_rows: int = 0
    packed_tokens: int = 0
    wordless: int = 0
    histogram: Counter = dataclasses.field(default_factory=Counter)

    def add(self, made: packing.Packed, packed: packing.Packed, special: vocab.SpecialIds) -> None:
        """Counts a window: its rows, and what they would be in the packed format."""
        self.counts += np.bincount(made.rows.reshape(-1), minlength=len(self.counts))
        self.counts[[special.pad, special.cls, special.sep]] = 0
        self.rows += len(made.rows)
        self.tokens += made.tokens
        self.split_documents += made.split_documents
        self.dropped_tokens += made.dropped_tokens
        self.packed_rows += len(packed.rows)
        self.packed_tokens += packed.tokens

    def figures(self, shards: tuple[manifest.Shard, ...], row_length: int, frequency: np.ndarray) -> manifest.Split:
        nats = -float(self.counts @ np.log(frequency))
        return manifest.Split(
            shards=shards,
            rows=self.rows,
            tokens=self.tokens,
            documents=self.documents,
            split_documents=self.split_documents,
            fill_fraction=_share(self.tokens, self.rows * row_length),
            unigram_cross_entropy=round(nats / max(1, int(self.counts.sum())), 6),
            split_fraction=_share(self.split_documents, self.documents),
            dropped_tokens=self.dropped_tokens,
            packed_fill_fraction=_share(self.packed_tokens, self.packed_rows * row_length),
        )


def _share(part: int, whole: int) -> float:
    return round(part / max(1, whole), 6)


def _finished(output_dir: str, request: dict[str, Any]) -> manifest.Manifest:
    """The dataset that stands in `output_dir`, if it is the one asked for."""
    there = manifest.read(output_dir)
    for key, wanted in request.items():
        if key != "rows_per_shard" and (got := getattr(there, key)) != wanted:
            shown = "other documents" if key == "sources" else f"{key}={got!r}, not {wanted!r}"
            raise UserError(f"{output_dir}: holds another dataset ({shown}); choose another --output, or remove it")
    workspace.close(output_dir)
    console.say(f"{output_dir}: already packed from the same documents; nothing to do")
    return there


def _tokenize(
    part: str, vocab_path: str, lower_case: bool, by_sentence: bool, work: str, split: str, number: int
) -> str:
    """Tokenises one part into a scratch file; returns its path."""
    path = files.join(work, f"tokens-{split}-{number:05d}")
    if not files.exists(path):
        tokenizer = _tokenizer(vocab_path, lower_case)
        ends = packing.SentenceEnds.of(tokenizer.tokens) if by_sentence else None
        token_files.write(path, token_files.tokenize(corpus.read_part(part), tokenizer, ends))
    return path


_loaded: dict[tuple[str, bool], Tokenizer] = {}


def _tokenizer(vocab_path: str, lower_case: bool) -> Tokenizer:
    """One tokenizer per process: it gets faster with the words it has seen."""
    key = (vocab_path, lower_case)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = Tokenizer(vocab_path, lower_case)
    return _loaded[key]


def _pack_split(staged: Iterator[str], plan: _Plan, work: str, split: str, rows_per_shard: int) -> _Built:
    built = _Built(np.zeros(len(plan.tokens), np.int64))
    scratch = files.join(work, f"rows-{split}")
    blocks = (_counted(block, built) for path in staged for block in token_files.read(path))
    with ShardWriter(scratch, plan.row_length, plan.dtype, rows_per_shard) as writer:
        for tokens in token_files.windows(blocks, WINDOW_ROWS * plan.row_length):
            packed = plan.packed(tokens)
            made = packed if plan.format == PACKED else plan.examples(tokens)
            writer.write(made.rows)
            built.add(made, packed, plan.special)
    built.shards = writer.shards
    return built


def _counted(block: Tokens, built: _Built) -> Tokens:
    """The documents that have a token; all are counted."""
    some = block.without_wordless()
    built.documents += len(some.lengths)
    built.wordless += len(block.lengths) - len(some.lengths)
    ends = 1 << np.ceil(np.log2(some.lengths)).astype(np.int64)
    built.histogram += Counter(ends.tolist())
    return some


def _warn_of_unknown(built: _Built, special: vocab.SpecialIds, split: str) -> None:
    unknown = int(built.counts[special.unk]) / max(1, int(built.counts.sum()))
    if unknown > UNKNOWN_WARNING:
        console.say(
            f"warning: {unknown:.1%} of the {split} tokens are [UNK]; is this the vocabulary of "
            "such text, and is --cased given exactly where it was trained so?"
        )


def _smoothed(counts: np.ndarray, special: vocab.SpecialIds) -> np.ndarray:
    """Add-one-smoothed probability of each id; of [PAD] [CLS] [SEP], which are never masked, 1."""
    weights = counts + 1.0
    weights[[special.pad, special.cls, special.sep]] = 0
    frequency = weights / weights.sum()
    frequency[[special.pad, special.cls, special.sep]] = 1
    return frequency
