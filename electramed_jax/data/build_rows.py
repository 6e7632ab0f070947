"""Documents to packed rows: tokenised over a pool, packed and written in one stream.

Tokenising is the work, so it is what the processes share; its results are kept until the dataset is
complete. Packing walks the documents in order, across the borders of parts, so that the rows depend
on neither the number of processes nor an interruption.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

import electramed_jax
from electramed_jax.common import console, files
from electramed_jax.common.errors import UserError
from electramed_jax.data import corpus, documents, manifest, pool, vocab, workspace
from electramed_jax.data import pack as packing
from electramed_jax.data.shards import ShardWriter, place
from electramed_jax.data.tokenize import Tokenizer

ROWS_PER_SHARD = 65_536
WINDOW_ROWS = 16_384  # rows' worth of tokens packed at a time
PAIRED_FRACTION = 0.9
UNKNOWN_WARNING = 0.01  # a vocabulary trained on the corpus itself leaves about 1e-5
_TEXTS_AT_ONCE = 256


def pack(
    documents_dir: str,
    vocab_path: str,
    output_dir: str,
    *,
    row_length: int,
    name: str = "pubmed",
    rows_per_shard: int = ROWS_PER_SHARD,
    lower_case: bool = True,
    workers: int | None = None,
) -> manifest.Manifest:
    """Makes a packed dataset (see `manifest`) of a documents folder; returns its manifest.

    A finished dataset of the same request is left as it is.

    Raises:
      UserError: unusable documents or vocabulary, an empty training split, an output folder that
        holds another dataset.
    """
    packing.check_row_length(row_length)
    account = corpus.read(documents_dir)
    tokens = vocab.read(vocab_path)
    request = {
        "vocab_sha256": vocab.sha256(vocab_path),
        "row_length": row_length,
        "name": name,
        "rows_per_shard": rows_per_shard,
        "lower_case": lower_case,
        "code_version": electramed_jax.__version__,
        "sources": account["inputs"],
    }
    if files.exists(files.join(output_dir, manifest.FILE)):
        return _finished(output_dir, request)
    plan = _Plan(row_length, tokens, vocab.special_ids(tokens), packing.SentenceEnds.of(tokens), lower_case)
    work = workspace.open_in(output_dir, request, lambda found: found.startswith(f"{name}-"))
    own_vocab = files.join(output_dir, manifest.VOCAB_FILE)
    with files.atomic_write(own_vocab) as file:
        file.write(files.read_bytes(vocab_path))

    splits, histogram, wordless = {}, Counter(), 0
    frequency: np.ndarray | None = None  # of the training split, which is packed first
    parts = len(account["inputs"])
    tasks = [
        (corpus.part_path(documents_dir, split, part), own_vocab, lower_case, work, split, part)
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
    )
    manifest.write(output_dir, result)
    workspace.close(output_dir)
    return result


@dataclasses.dataclass(frozen=True)
class _Plan:
    row_length: int
    tokens: list[str]
    special: vocab.SpecialIds
    sentence_ends: packing.SentenceEnds
    lower_case: bool

    @property
    def dtype(self) -> str:
        return manifest.dtype_for(len(self.tokens))


@dataclasses.dataclass
class _Built:
    """One split as it grows."""

    counts: np.ndarray  # int64[V], how often each id occurs in the documents
    shards: list[manifest.Shard] = dataclasses.field(default_factory=list)
    rows: int = 0
    tokens: int = 0
    documents: int = 0
    split_documents: int = 0
    wordless: int = 0
    histogram: Counter = dataclasses.field(default_factory=Counter)

    def figures(self, shards: tuple[manifest.Shard, ...], row_length: int, frequency: np.ndarray) -> manifest.Split:
        nats = -float(self.counts @ np.log(frequency))
        return manifest.Split(
            shards=shards,
            rows=self.rows,
            tokens=self.tokens,
            documents=self.documents,
            split_documents=self.split_documents,
            fill_fraction=round(self.tokens / max(1, self.rows * row_length), 6),
            unigram_cross_entropy=round(nats / max(1, int(self.counts.sum())), 6),
        )


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


def _tokenize(part: str, vocab_path: str, lower_case: bool, work: str, split: str, number: int) -> str:
    """Tokenises one part into a scratch file; returns its path."""
    path = files.join(work, f"tokens-{split}-{number:05d}.npz")
    if files.exists(path):
        return path
    tokenizer = _tokenizer(vocab_path, lower_case)
    dtype = manifest.dtype_for(len(tokenizer.tokens))
    ids, lengths, paired = [np.empty(0, dtype)], [], []
    for batch in _batches(part):
        for document, encoded in zip(batch, tokenizer.encode_batch([document.text for document in batch]), strict=True):
            ids.append(encoded.astype(dtype))
            lengths.append(len(encoded))
            paired.append(corpus.stable_hash(f"pair:{document.id}") < PAIRED_FRACTION * 2**64)
    with files.atomic_write(path) as file:
        np.savez(
            file,
            ids=np.concatenate(ids),
            lengths=np.array(lengths, np.int64),
            paired=np.array(paired, bool),
        )
    return path


_loaded: dict[tuple[str, bool], Tokenizer] = {}


def _tokenizer(vocab_path: str, lower_case: bool) -> Tokenizer:
    """One tokenizer per process: building it costs as much as tokenising some thousand texts."""
    key = (vocab_path, lower_case)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = Tokenizer(vocab_path, lower_case)
    return _loaded[key]


def _batches(part: str) -> Iterator[list[documents.Document]]:
    batch: list[documents.Document] = []
    for document in corpus.read_part(part):
        batch.append(document)
        if len(batch) == _TEXTS_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _pack_split(staged: Iterator[str], plan: _Plan, work: str, split: str, rows_per_shard: int) -> _Built:
    built = _Built(np.zeros(len(plan.tokens), np.int64))
    scratch = files.join(work, f"rows-{split}")
    with ShardWriter(scratch, plan.row_length, plan.dtype, rows_per_shard) as writer:
        for ids, lengths, paired in _windows(staged, built, WINDOW_ROWS * plan.row_length):
            packed = packing.pack(ids, lengths, paired, plan.row_length, plan.special, plan.sentence_ends)
            writer.write(packed.rows)
            built.counts += np.bincount(ids, minlength=len(plan.tokens))
            built.rows += len(packed.rows)
            built.tokens += packed.tokens
            built.documents += len(lengths)
            built.split_documents += packed.split_documents
            ends = 1 << np.ceil(np.log2(lengths)).astype(np.int64)
            built.histogram += Counter(ends.tolist())
    built.shards = writer.shards
    return built


def _windows(
    staged: Iterator[str], built: _Built, tokens_at_once: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(ids, lengths, paired) of as many whole documents as reach `tokens_at_once`, at most."""
    waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    size = 0
    for path in staged:
        with files.open_read(path) as file:
            arrays = np.load(file)
            ids, lengths, paired = (
                arrays["ids"].astype(np.int64),
                arrays["lengths"],
                arrays["paired"],
            )
        built.wordless += int((lengths == 0).sum())
        paired, lengths = paired[lengths > 0], lengths[lengths > 0]
        while len(lengths):
            ends = np.cumsum(lengths)
            count = int(np.searchsorted(ends, tokens_at_once - size)) + 1
            taken = int(ends[min(count, len(ends)) - 1])
            waiting.append((ids[:taken], lengths[:count], paired[:count]))
            ids, lengths, paired = ids[taken:], lengths[count:], paired[count:]
            size += taken
            if size >= tokens_at_once:
                yield tuple(np.concatenate(arrays) for arrays in zip(*waiting, strict=True))
                waiting, size = [], 0
    if waiting:
        yield tuple(np.concatenate(arrays) for arrays in zip(*waiting, strict=True))


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
