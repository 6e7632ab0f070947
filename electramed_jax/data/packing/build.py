"""Builds a packed dataset from a documents folder: tokenizes in a pool of processes, packs rows in one stream.

Tokenization takes most of the time, so the processes share it. Its results are kept until the dataset is
complete. Packing reads the documents in order, across part boundaries, so that the rows depend on neither
the number of processes nor an interruption. Memory holds one block or one window of documents at a time.

Row formats: "packed" (see `pack.pack_documents`: full rows, nothing dropped) and "electra" (see
`electra_format`: one two-segment example a row, the original recipe).
"""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
from electramed_jax.data.packing.shard_writer import ShardWriter, place_shards
from electramed_jax.data.packing.token_files import Tokens
from electramed_jax.data.parallel import build_dir, process_pool
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

ROWS_PER_SHARD = 65_536
WINDOW_ROWS = 16_384  # rows of tokens packed at a time
CASED_WARNING = 0.02  # of the tokens; SciBERT's uncased vocabulary has none, its cased one 29 %
UNKNOWN_WARNING = 0.01  # a vocabulary trained on the corpus itself leaves about 1e-5

BuiltSplit = tuple[str, SplitStats, tuple[manifest.Shard, ...]]


def pack(
    documents_dir: str,
    vocab_path: str,
    output_dir: str,
    *,
    row_length: int,
    format: str = PACKED,
    name: str | None = None,
    license: str = "",
    rows_per_shard: int = ROWS_PER_SHARD,
    lower_case: bool = True,
    keep_accents: bool = False,
    workers: int | None = None,
    beam: BeamRunner | None = None,
) -> manifest.Manifest:
    """Builds a packed dataset (see `manifest`) from a documents folder; returns its manifest.

    A complete dataset of the same request is not built again.

    Args:
      format: one of FORMATS.
      name: of the dataset, the beginning of the names of its files; None is that of the documents.
      license: of the texts without one of their own; "" is that of the documents.
      lower_case, keep_accents: as in `Tokenizer`.
      workers: processes (default: one per core).
      beam: runs the work as a Beam pipeline instead of in `workers` processes (see `build_beam`).

    Raises:
      UserError: unusable documents or vocabulary, an empty training split, or an output folder with
        another dataset.
    """
    packing.check_row_length(row_length)
    if format not in FORMATS:
        raise UserError(f"format={format!r}; wanted one of {', '.join(FORMATS)}")
    if beam is not None:
        beam.check([documents_dir, output_dir])
    info = corpus_dir.read_documents_info(documents_dir)
    tokens = vocab.read_vocab(vocab_path)
    if name is None:
        name = corpus_dir.corpus_name(info)
    corpus_dir.check_name(name)
    _warn_of_case(tokens, lower_case, keep_accents, vocab_path)
    request = {
        "vocab_sha256": vocab.sha256(vocab_path),
        "row_length": row_length,
        "format": format,
        "name": name,
        "rows_per_shard": rows_per_shard,
        "lower_case": lower_case,
        "keep_accents": keep_accents,
        "code_version": electramed_jax.__version__,
        "sources": info["inputs"],
    }
    if license := license or info.get("request", {}).get("license", ""):
        request["license"] = license
    if files.exists(files.join(output_dir, manifest.MANIFEST_FILE)):
        return _read_finished(output_dir, request)
    vocab.special_ids(tokens)  # raises before anything is written
    work = build_dir.open_build_dir(output_dir, request, lambda file: file.startswith(f"{name}-"))
    own_vocab = files.join(output_dir, vocab.VOCAB_FILE)
    with files.atomic_write(own_vocab) as file:
        file.write(files.read_bytes(vocab_path))

    spec = PackingSpec(
        own_vocab, lower_case, row_length, format, name, rows_per_shard, WINDOW_ROWS * row_length, keep_accents
    )
    num_parts = len(info["inputs"])
    if beam is None:
        splits = _build_splits(workers, documents_dir, num_parts, work, output_dir, spec)
    else:
        from electramed_jax.data.packing import build_beam

        splits = build_beam.build_splits(beam, documents_dir, num_parts, work, output_dir, spec)
    result = _make_manifest(splits, documents_dir, info, tokens, request)
    result = manifest.write_manifest(output_dir, result)
    build_dir.close_build_dir(output_dir)
    return result


def _read_finished(output_dir: str, request: dict[str, Any]) -> manifest.Manifest:
    """Returns the manifest in `output_dir` if its dataset is the requested one."""
    found = manifest.read_manifest(output_dir)
    for key, wanted in request.items():
        if key != "rows_per_shard" and (got := getattr(found, key)) != wanted:
            difference = "other documents" if key == "sources" else f"{key}={got!r}, not {wanted!r}"
            raise UserError(
                f"{output_dir}: holds another dataset ({difference}); choose another --output, or remove the folder"
            )
    build_dir.close_build_dir(output_dir)
    console.say(f"{output_dir}: already packed from the same documents; nothing to do")
    return found


def _build_splits(
    workers: int | None, documents_dir: str, num_parts: int, work: str, output_dir: str, spec: PackingSpec
) -> Iterator[BuiltSplit]:
    """Yields each split, the training split first, with its statistics and its shards, moved to `output_dir`."""
    builder = RowBuilder.from_spec(spec)
    tasks = [
        (corpus_dir.part_path(documents_dir, split, part), spec, work, split, part)
        for split in corpus_dir.SPLITS
        for part in range(num_parts)
    ]
    token_paths = process_pool.run_tasks(_tokenize, tasks, workers, "tokenizing")
    for split in corpus_dir.SPLITS:
        of_split = itertools.islice(token_paths, num_parts)
        stats, shards = _pack_split(of_split, builder, files.join(work, f"rows-{split}"))
        yield split, stats, place_shards(shards, output_dir, spec.name, split)


def _tokenize(part: str, spec: PackingSpec, work: str, split: str, number: int) -> str:
    """Tokenizes one part into a scratch file; returns its path."""
    path = files.join(work, f"tokens-{split}-{number:05d}")
    if not files.exists(path):
        tokenizer = _cached_tokenizer(spec)
        ends = packing.SentenceEnds.from_vocab(tokenizer.tokens) if spec.format == ELECTRA else None
        token_files.write_blocks(path, token_files.tokenize(corpus_dir.read_part(part), tokenizer, ends))
    return path


_tokenizers: dict[tuple[str, bool, bool], Tokenizer] = {}


def _cached_tokenizer(spec: PackingSpec) -> Tokenizer:
    """Returns the process's tokenizer; it caches the ids of words, so it is kept from part to part."""
    key = (spec.vocab_path, spec.lower_case, spec.keep_accents)
    if key not in _tokenizers:
        _tokenizers.clear()
        _tokenizers[key] = Tokenizer(*key)
    return _tokenizers[key]


def _pack_split(
    token_paths: Iterable[str], builder: RowBuilder, scratch_prefix: str
) -> tuple[SplitStats, list[manifest.Shard]]:
    spec, stats = builder.spec, SplitStats.zeros(builder.vocab_size)
    blocks = (_count_documents(block, stats) for path in token_paths for block in token_files.read_blocks(path))
    with ShardWriter(scratch_prefix, spec.row_length, builder.dtype, spec.rows_per_shard) as writer:
        for tokens in token_files.windows(blocks, spec.window_tokens):
            writer.write(builder.build(tokens, stats))
    return stats, writer.shards


def _count_documents(block: Tokens, stats: SplitStats) -> Tokens:
    """Adds all documents of a block to `stats`; returns those that have a token."""
    stats.add_documents(block.lengths)
    return block.drop_empty()


def _make_manifest(
    splits: Iterable[BuiltSplit],
    documents_dir: str,
    info: dict[str, Any],
    tokens: Sequence[str],
    request: dict[str, Any],
) -> manifest.Manifest:
    """Builds the splits one by one and returns the manifest of the dataset."""
    special, row_length = vocab.special_ids(tokens), request["row_length"]
    entries: dict[str, manifest.Split] = {}
    histogram: Counter[int] = Counter()
    empty_documents = 0
    probabilities: np.ndarray | None = None
    for split, stats, shards in splits:
        if probabilities is None:
            if not stats.rows:
                raise UserError(f"{documents_dir}: no text to train on; prepare more documents")
            probabilities = stats.unigram_probabilities(special)
        _warn_of_unknown(stats, special, split)
        entries[split] = stats.to_split(shards, row_length, probabilities)
        histogram += stats.histogram
        empty_documents += stats.empty_documents
    dropped = Counter(info["dropped"]) + Counter({"no_tokens": empty_documents})
    return manifest.Manifest(
        row_length=row_length,
        dtype=manifest.dtype_for(len(tokens)),
        vocab_size=len(tokens),
        vocab_sha256=request["vocab_sha256"],
        lower_case=request["lower_case"],
        keep_accents=request["keep_accents"],
        special=special,
        splits=entries,
        sources=info["inputs"],
        dropped=dict(dropped),
        length_histogram={str(end): histogram[end] for end in sorted(histogram)},
        code_version=request["code_version"],
        name=request["name"],
        format=request["format"],
        license=request.get("license", ""),
    )


def _warn_of_case(tokens: Sequence[str], lower_case: bool, keep_accents: bool, path: str) -> None:
    """Warns of a vocabulary with capitals or accents that the lower-cased text cannot contain."""
    if not lower_case:
        return
    words = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    capitals = [token for token in words if token != token.lower()]
    if len(capitals) > CASED_WARNING * len(words):
        console.warn(
            f"warning: {path} is a cased vocabulary ({len(capitals):,} of {len(words):,} tokens have capitals, such as "
            f"{capitals[len(capitals) // 2]!r}), but the text is lower-cased; pack with --cased"
        )
        return
    if keep_accents:
        return
    accented = [token for token in words if unicodedata.normalize("NFD", token) != token and _has_accent(token)]
    if len(accented) > CASED_WARNING * len(words):
        console.warn(
            f"warning: {len(accented):,} of {len(words):,} tokens of {path} have accents, such as "
            f"{accented[len(accented) // 2]!r}, which are removed from lower-cased text; pack with --keep_accents, "
            "or those tokens are never used"
        )


def _has_accent(token: str) -> bool:
    return any(unicodedata.category(letter) == "Mn" for letter in unicodedata.normalize("NFD", token))


def _warn_of_unknown(stats: SplitStats, special: SpecialIds, split: str) -> None:
    unknown = int(stats.counts[special.unk]) / max(1, int(stats.counts.sum()))
    if unknown > UNKNOWN_WARNING:
        console.say(
            f"warning: {unknown:.1%} of the {split} tokens are [UNK]. Check that the vocabulary was trained on text "
            "of this kind, and that --cased and --keep_accents are given if and only if it was trained with them."
        )
