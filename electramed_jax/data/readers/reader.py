"""Input names to documents: finds the files and datasets, and picks the reader of each by its name.

A new file format is a module with `read(errors, pubmed_options, deletions)` and a row in `_FILE_READERS`. A new kind of
dataset is a module that also has `find_shards(name)` and `shard_path(shard)`, and a row in `_DATASET_READERS`.

A damaged piece is skipped and counted in `drops` under its reason; the rest of the file is used. Each reader's
docstring lists its reasons.
"""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers.document import REPAIRED_PREFIX, Document, PubmedOptions, ReadErrors

# Module of each reader, imported on first use: only .xml needs lxml, only tfds: needs tensorflow_datasets.
_FILE_READERS = {".xml": "pubmed.pubmed_xml", ".jsonl": "jsonl", ".txt": "plain_text"}  # by extension, without .gz
_DATASET_READERS = {"tfds:": "tfds_reader"}  # by prefix


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """Returns the sorted inputs of `read_documents`: the files that match, and the shards of datasets.

    Raises:
      UserError: a pattern matches nothing, or a dataset is not prepared (see `tfds_reader`).
    """
    patterns = list(patterns)
    found = files.glob(pattern for pattern in patterns if _dataset_reader(pattern) is None)
    for name in patterns:
        if dataset_reader := _dataset_reader(name):
            found += dataset_reader.find_shards(name)
    return _drop_repeated(sorted(set(found)))


def input_bytes(path: str) -> int:
    """Returns the size in bytes of the file behind a name that `find_inputs` returned."""
    if dataset_reader := _dataset_reader(path):
        path = dataset_reader.shard_path(path)
    return files.size(path)


def read_documents(
    path: str,
    drops: Counter[str],
    strict: bool = False,
    pubmed_options: PubmedOptions = PubmedOptions(),
    deletions: list[int] | None = None,
    unusable: list[str] | None = None,
) -> Iterator[Document]:
    """Yields the documents of one input, with the reader that its extension or prefix selects.

    Args:
      path: a name that `find_inputs` returned.
      drops: reason -> number of dropped or repaired pieces; updated in place.
      strict: raise at the first damaged piece.
      pubmed_options: for PubMed records; the other formats have no options.
      deletions: the PMIDs that the file withdraws (DeleteCitation) are appended.
      unusable: the reason is appended if (almost) nothing of the file can be used; see `ReadErrors.describe_unusable`.

    Raises:
      UserError: missing file, unknown format, or if strict a damaged piece, with file and line.
    """
    file_reader = _dataset_reader(path) or _file_reader(path)
    errors = ReadErrors(path, drops, strict)
    documents = text_bytes = 0
    for document in file_reader.read(errors, pubmed_options, [] if deletions is None else deletions):
        documents += 1
        text_bytes += len(document.title) + sum(len(text) for _, text in document.sections)
        if errors.converted:
            drops[f"{REPAIRED_PREFIX}encoding"] += 1
        yield document
    if unusable is not None and (reason := errors.describe_unusable(documents, text_bytes)):
        unusable.append(reason)


def _drop_repeated(paths: list[str]) -> list[str]:
    """Returns the paths without those of files that another path names; warns about each."""
    first: dict[str, str] = {}
    for path in paths:
        local = files.local_path(path)
        target = path if local is None or _dataset_reader(path) else os.path.realpath(local)
        if first.setdefault(target, path) != path:
            console.warn(f"{path}: the same file as {first[target]}; it is read once")
    return list(first.values())


def _dataset_reader(name: str) -> Any | None:
    for prefix, module in _DATASET_READERS.items():
        if name.startswith(prefix):
            return _import_reader(module)
    return None


def _file_reader(path: str) -> Any:
    name = os.path.basename(path).lower().removesuffix(".gz")
    for extension, module in _FILE_READERS.items():
        if name.endswith(extension):
            return _import_reader(module)
    *others, last = _FILE_READERS
    datasets = ", ".join(f"{prefix}NAME" for prefix in _DATASET_READERS)
    raise UserError(f"{path}: unknown file format; wanted {', '.join(others)} or {last}, also with .gz, or {datasets}")


def _import_reader(module: str) -> Any:
    return importlib.import_module(f"electramed_jax.data.readers.{module}")
