"""Input names to documents: finds the files and datasets, recognizes the format of each, and calls its reader.

`formats` lists the readers of files. A new kind of dataset is a module that also has `find_shards(name)` and
`shard_path(shard)`, and a row in `_DATASET_READERS`.

A damaged piece is skipped and counted in `drops` under its reason; the rest of the file is used. Each reader's
docstring lists its reasons.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import files
from electramed_jax.data.readers import archive, compression, formats
from electramed_jax.data.readers import head as head_module
from electramed_jax.data.readers.document import REPAIRED_PREFIX, Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.head import Head

# Module of each reader of datasets by prefix, imported on first use: only tfds: needs tensorflow_datasets.
_DATASET_READERS = {"tfds:": "tables.tfds_reader", "hf:": "tables.hf_reader"}


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """Returns the sorted inputs of `read_documents`: the files that match, and the shards of datasets.

    Raises:
      UserError: a pattern matches nothing, or a dataset is not prepared (see `tfds_reader`).
    """
    patterns = [f"hf:{name}" if _is_saved_dataset(name) else name for name in patterns]
    found = files.glob(pattern for pattern in patterns if _dataset_prefix(pattern) is None)
    for name in patterns:
        if prefix := _dataset_prefix(name):
            found += _import_reader(_DATASET_READERS[prefix]).find_shards(name)
    return _drop_repeated(sorted(set(found)))


def input_bytes(path: str) -> int:
    """Returns the size in bytes of the file behind a name that `find_inputs` returned."""
    if prefix := _dataset_prefix(path):
        path = _import_reader(_DATASET_READERS[prefix]).shard_path(path)
    return files.size(path)


def read_documents(
    path: str,
    drops: Counter[str],
    strict: bool = False,
    options: ReadOptions = ReadOptions(),
    deletions: list[int] | None = None,
    unusable: list[str] | None = None,
    counts: Counter[str] | None = None,
) -> Iterator[Document]:
    """Yields the documents of one input, with the reader of its format.

    Args:
      path: a name that `find_inputs` returned.
      drops: reason -> number of dropped or repaired pieces; updated in place.
      strict: raise at the first damaged piece.
      options: what is read; `options.format` replaces the recognition of the format.
      deletions: the PMIDs that the file withdraws (DeleteCitation) are appended.
      unusable: the reason is appended if (almost) nothing of the file can be used; see `ReadErrors.describe_unusable`.
      counts: name of the format -> number of documents; updated in place.

    Raises:
      UserError: missing file, or if strict an unknown format or a damaged piece, with file and line.
    """
    errors = ReadErrors(path, drops, strict)
    deletions = [] if deletions is None else deletions
    counts = Counter() if counts is None else counts
    if prefix := _dataset_prefix(path):
        documents = _count(
            _import_reader(_DATASET_READERS[prefix]).read(errors, options, deletions), prefix[:-1], counts
        )
    else:
        head = None if options.format else head_module.read_head(path)
        documents = _read(head, errors, options, deletions, counts)
    number = text_bytes = 0
    for document in documents:
        number += 1
        text_bytes += len(document.title) + sum(len(text) for _, text in document.sections)
        if errors.converted:
            drops[f"{REPAIRED_PREFIX}encoding"] += 1
        yield document
    if unusable is not None and (reason := errors.describe_unusable(number, text_bytes)):
        unusable.append(reason)


def _drop_repeated(paths: list[str]) -> list[str]:
    """Returns the paths without those of files that another path names; warns about each."""
    first: dict[str, str] = {}
    for path in paths:
        local = files.local_path(path)
        target = path if local is None or _dataset_prefix(path) else os.path.realpath(local)
        if first.setdefault(target, path) != path:
            console.warn(f"{path}: the same file as {first[target]}; it is read once")
    return list(first.values())


def _read(
    head: Head | None, errors: ReadErrors, options: ReadOptions, deletions: list[int], counts: Counter[str]
) -> Iterator[Document]:
    """Yields the documents of a file, or of a member of an archive; `head` is None if the format is given."""
    if head is None:
        found = formats.find_format(options.format)
    elif (recognized := formats.recognize(head)) is not None:
        found = recognized
        if why := formats.mismatch(head, found):
            console.warn(f"{errors.path}: {why}, the content is {found.name}; it is read as {found.name}")
    elif errors.stream is not None:
        errors.report_damaged("unknown_member", 0, "member of unknown format")
        return
    else:
        errors.file_bytes = files.size(errors.path)
        errors.report_damaged("unknown_format", 0, _describe_unknown_format())
        return
    if found.name in (archive.TAR, archive.ZIP):
        if errors.stream is not None:
            errors.report_damaged("nested_archive", 0, "an archive in an archive; unpack it")
            return
        yield from _read_archive(found.name, errors, options, deletions, counts)
    else:
        documents = _import_reader(found.module).read(errors, options, deletions)
        yield from _count(documents, found.name, counts)


def _read_archive(
    kind: str, errors: ReadErrors, options: ReadOptions, deletions: list[int], counts: Counter[str]
) -> Iterator[Document]:
    """Yields the documents of the members; `errors` then has the sizes and the damage of the members that were read.

    Pictures and other members that no reader reads are no part of the sizes.
    """
    bytes_read = used_bytes = 0
    member_options = dataclasses.replace(options, format="")
    for name, stream in archive.read_members(errors, kind):
        path = f"{errors.path}{archive.MEMBER_MARK}{name}"
        member = ReadErrors(path, errors.drops, errors.strict, errors.max_line_bytes, errors.max_expansion)
        try:
            # The first bytes are kept for the reader, because a member cannot seek.
            start = stream.read(head_module.RAW_BYTES)
            member.stream = compression.join(start, stream)
            head = head_module.make_head(path, start, len(start) < head_module.RAW_BYTES)
            for document in _read(head, member, member_options, deletions, counts) if start else ():
                errors.converted = member.converted
                yield document
        except UserError:
            raise
        except archive.DAMAGE as error:
            if kind == archive.TAR:
                archive.report_damage(errors, error)
                break
            member.report_damaged("damaged_member", 0, f"member {name!r} is damaged ({first_line(error)})")
        bytes_read, used_bytes = bytes_read + member.bytes_read, used_bytes + member.used_bytes
        errors.damage = {**member.damage, **errors.damage}
        errors.dropped += member.dropped
    errors.converted = False
    errors.bytes_read, errors.used_bytes = bytes_read, used_bytes
    errors.file_bytes = errors.file_bytes_read = files.size(errors.path)
    if not (bytes_read or errors.damage):
        errors.damage["no_member"] = "contains no file in a known format"


def _count(documents: Iterator[Document], name: str, counts: Counter[str]) -> Iterator[Document]:
    for document in documents:
        counts[name] += 1
        yield document


def _describe_unknown_format() -> str:
    names = ", ".join(row.name for row in formats.FORMATS)
    datasets = ", ".join(f"{prefix}NAME" for prefix in _DATASET_READERS)
    return (
        f"unknown file format; wanted one of {names}, or {datasets}; name it with --format if the content was not "
        "recognized"
    )


def _dataset_prefix(name: str) -> str | None:
    return next((prefix for prefix in _DATASET_READERS if name.startswith(prefix)), None)


def _is_saved_dataset(name: str) -> bool:
    """Returns whether a name is a folder that `datasets.save_to_disk` wrote."""
    if _dataset_prefix(name) or "*" in name or not files.is_dir(name):
        return False
    return _import_reader("tables.hf_reader").is_saved_dataset(name)


def _import_reader(module: str) -> Any:
    return importlib.import_module(f"electramed_jax.data.readers.{module}")
