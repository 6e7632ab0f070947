"""Reads and writes the manifest of a packed dataset: manifest.json, written last, and the metadata files of TFDS."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import posixpath
import re
import tempfile
from typing import Any, TypedDict

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values, tfrecord
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.tokenizer import vocab

MANIFEST_FILE = "manifest.json"
FORMAT_VERSION = 1
TFDS_FILES = ("features.json", "dataset_info.json")
DTYPES = ("uint16", "uint32")
MAX_ROW_LENGTH = 1 << 20
_ADVICE = "copy the packed folder again, or pack again"
_LENGTH = re.compile(r"[0-9]{1,18}")  # key of the histogram of document lengths


class Source(TypedDict, total=False):
    """An input file of the dataset, as `electramed prepare` counts it; other keys are counts too.

    Attributes:
      file: its name.
      kept: documents of it that are in the dataset.
    """

    file: str
    kept: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A TFRecord file.

    Attributes:
      file: its name in the folder.
      rows: number of rows.
      sha256: hexadecimal SHA-256 of the file.
      ends_sha256: that of its first and last 64 KiB (`tfrecord.hash_ends`); "" in datasets of earlier versions.
    """

    file: str
    rows: int
    sha256: str
    ends_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class Split:
    """A split: its shards and statistics.

    Attributes:
      tokens: ids that are not [PAD], special tokens included.
      documents: number of documents.
      split_documents: documents that are in more than one row.
      fill_fraction: tokens / (rows * row_length).
      unigram_cross_entropy: nats per maskable token (all but [PAD] [CLS] [SEP]) under the add-one-smoothed
        unigram distribution of the training split: the loss of a model that ignores context.
      split_fraction: split_documents / documents.
      dropped_tokens: tokens of the documents that are in no row; 0 in the packed format.
      packed_fill_fraction: fill_fraction of the same documents in the packed format, for comparison.
    """

    shards: tuple[Shard, ...]
    rows: int
    tokens: int
    documents: int
    split_documents: int
    fill_fraction: float
    unigram_cross_entropy: float
    split_fraction: float = 0.0
    dropped_tokens: int = 0
    packed_fill_fraction: float = 0.0


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents and sources of a packed dataset.

    Attributes:
      row_length: T, ids in a row.
      dtype: "uint16" or "uint32", little-endian.
      lower_case: whether the text was lower-cased.
      sources: name, formats, licences and counts of each input file, from `electramed prepare`.
      dropped: number of documents of the inputs that are in no row, by reason.
      length_histogram: documents by token count; the key is the inclusive upper end of the bin.
      name: prefix of the shard names.
      keep_accents: whether lower-cased text kept its accents.
      license: of the texts without one of their own; "" if it is unknown.
      format: of the rows, "packed" or "electra" (one two-segment example per row, then padding).
      digest: SHA-256 of the other fields, by `compute_digest`; "" in datasets of earlier versions and in a manifest of
        several folders.
    """

    row_length: int
    dtype: str
    vocab_size: int
    vocab_sha256: str
    lower_case: bool
    special: SpecialIds
    splits: dict[str, Split]
    sources: list[dict[str, Any]]
    dropped: dict[str, int]
    length_histogram: dict[str, int]
    code_version: str
    name: str = "pubmed"
    format: str = "packed"
    format_version: int = FORMAT_VERSION
    digest: str = ""
    license: str = ""
    keep_accents: bool = False


def shard_name(name: str, split: str, number: int, count: int) -> str:
    """Returns the file name of a shard in the format of TFDS, such as `pubmed-train.tfrecord-00000-of-00004`."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{count:05d}"


def dtype_for(vocab_size: int) -> str:
    """Returns the smaller of the two id types that can hold every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_manifest(directory: str, manifest: Manifest) -> Manifest:
    """Writes the TFDS metadata, then manifest.json, which completes the dataset; returns the manifest with its digest.

    The shards and vocab.txt must exist already.
    """
    _write_tfds_metadata(directory, manifest)
    manifest = dataclasses.replace(manifest, digest=compute_digest(manifest))
    files.write_json(files.join(directory, MANIFEST_FILE), dataclasses.asdict(manifest))
    return manifest


def compute_digest(manifest: Manifest) -> str:
    """Returns the hexadecimal SHA-256 of all fields but `digest`, as JSON with sorted keys."""
    fields = dataclasses.asdict(dataclasses.replace(manifest, digest=""))
    for name in ("license", "keep_accents"):  # fields that were added later; datasets without them keep their digest
        if not fields[name]:
            del fields[name]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: str) -> Manifest:
    """Reads the manifest of a packed folder; checks it, the vocabulary, and the size of every shard.

    The contents of shards are verified by data/dataset/verify.py, and row by row when they are read.

    Raises:
      UserError: no manifest, unknown version, a manifest that was edited, missing or cut-short shard, another
        vocabulary.
    """
    path = files.join(directory, MANIFEST_FILE)
    if not files.exists(path):
        raise UserError(
            f"{directory}: no {MANIFEST_FILE}: not a packed dataset, or packing did not finish; run electramed pack"
        )
    manifest = _from_json(files.read_json(path, advice=_ADVICE), path)
    for split in manifest.splits.values():
        for shard in split.shards:
            if posixpath.basename(shard.file) != shard.file or shard.file in (".", ".."):
                raise UserError(
                    f"{path}: names the shard {shard.file!r}; wanted the name of a file in the same folder; {_ADVICE}"
                )
    sizes = files.sizes(directory)  # one request for all shards
    for file in (vocab.VOCAB_FILE, *(s.file for split in manifest.splits.values() for s in split.shards)):
        if file not in sizes:
            raise UserError(f"{files.join(directory, file)}: missing; copy the packed folder again, or pack again")
    _check_digest(path, manifest)
    _check_vocab(directory, manifest)
    record_size = tfrecord.record_size(manifest.row_length, manifest.dtype)
    for split in manifest.splits.values():
        for shard in split.shards:
            _check_size(files.join(directory, shard.file), shard, record_size, sizes[shard.file])
    return manifest


def load_manifest(path: str) -> Manifest:
    """Reads the manifest of a dataset to train on, without checking any shard.

    Raises:
      UserError: the file is missing, is not a manifest of a known version, or has no training split.
    """
    manifest = _from_json(files.read_json(path, advice=_ADVICE), path)
    if "train" not in manifest.splits:
        raise UserError(f"{path}: no split named train; {_ADVICE}")
    return manifest


def _from_json(value: Any, path: str) -> Manifest:
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version {version!r}; this program reads {FORMAT_VERSION}; "
            "pack again, or use the program version that wrote it"
        )
    manifest = json_values.convert(value, Manifest, path, advice=_ADVICE)
    if not 0 < manifest.row_length <= MAX_ROW_LENGTH:
        raise UserError(f"{path}: row_length is {manifest.row_length}; wanted 1 to {MAX_ROW_LENGTH:,}; {_ADVICE}")
    if manifest.dtype not in DTYPES:
        raise UserError(f"{path}: dtype is {manifest.dtype!r}; wanted {' or '.join(DTYPES)}; {_ADVICE}")
    for name, split in manifest.splits.items():
        if min((shard.rows for shard in split.shards), default=0) < 0:
            raise UserError(f"{path}: a shard of {name} has fewer than 0 rows; {_ADVICE}")
        if sum(shard.rows for shard in split.shards) != split.rows:
            raise UserError(
                f"{path}: {name} has {split.rows:,} rows, its shards have "
                f"{sum(shard.rows for shard in split.shards):,}; {_ADVICE}"
            )
    if invalid := [end for end in manifest.length_histogram if not _LENGTH.fullmatch(end)]:
        raise UserError(f"{path}: length_histogram has the key {invalid[0]!r}; wanted numbers of tokens; {_ADVICE}")
    for source in manifest.sources:
        json_values.convert(source, Source, f"{path}: sources", advice=_ADVICE)
    return manifest


def _check_digest(path: str, manifest: Manifest) -> None:
    if manifest.digest and manifest.digest != compute_digest(manifest):
        raise UserError(
            f"{path}: edited after packing (SHA-256 of its fields is {compute_digest(manifest)[:16]}…, wanted "
            f"{manifest.digest[:16]}…); copy the original back, or pack again with the settings you want"
        )


def _check_vocab(directory: str, manifest: Manifest) -> None:
    path = files.join(directory, vocab.VOCAB_FILE)
    if vocab.sha256(path) != manifest.vocab_sha256:
        raise UserError(
            f"{path}: not the vocabulary these rows were packed with (SHA-256 differs from "
            f"{MANIFEST_FILE}); put the original vocab.txt back, or pack again"
        )
    tokens = vocab.read_vocab(path)
    agreeing = (
        ("vocab_size", manifest.vocab_size, len(tokens)),
        ("special", manifest.special, vocab.special_ids(tokens)),
    )
    for name, got, wanted in agreeing:
        if got != wanted:
            raise UserError(
                f"{files.join(directory, MANIFEST_FILE)}: {name} is {got}; wanted {wanted}, as in {vocab.VOCAB_FILE}; "
                "copy the original manifest back, or pack again"
            )


def _check_size(path: str, shard: Shard, record_size: int, got: int) -> None:
    wanted = shard.rows * record_size
    if got != wanted:
        raise UserError(
            f"{path}: {got:,} bytes; wanted {wanted:,} ({shard.rows:,} rows): cut short or "
            "overwritten; copy the file again or pack again"
        )


def _write_tfds_metadata(directory: str, manifest: Manifest) -> None:
    """Writes the files that `tfds.builder_from_directory(directory)` reads; needs no TensorFlow.

    TFDS requires shard files next to its metadata and supports only its own storage. So it writes to a temporary
    folder with empty files of the shards' names, from which the two JSON files are copied.
    """
    import numpy as np
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import folder_dataset

    features = tfds.features.FeaturesDict(
        {
            tfrecord.FEATURE: tfds.features.Tensor(
                shape=(manifest.row_length,),
                dtype=np.dtype(manifest.dtype),
                encoding=tfds.features.Encoding.BYTES,
            )
        }
    )
    record_size = tfrecord.record_size(manifest.row_length, manifest.dtype)
    with tempfile.TemporaryDirectory() as folder:
        splits = []
        for name, split in manifest.splits.items():
            for shard in split.shards:
                open(os.path.join(folder, shard.file), "wb").close()
            if split.shards:
                splits.append(
                    tfds.core.SplitInfo(
                        name=name,
                        shard_lengths=[shard.rows for shard in split.shards],
                        num_bytes=split.rows * record_size,
                        filename_template=tfds.core.ShardedFileTemplate(
                            dataset_name=manifest.name,
                            data_dir=folder,
                            split=name,
                            filetype_suffix="tfrecord",
                        ),
                    )
                )
        folder_dataset.write_metadata(
            data_dir=folder,
            features=features,
            split_infos=splits,
            check_data=False,
            description="Rows of token ids packed by electramed; manifest.json tells the rest.",
        )
        for file in TFDS_FILES:
            text = files.read_text(os.path.join(folder, file)).replace(folder, ".")
            files.write_text(files.join(directory, file), text)
