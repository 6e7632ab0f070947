"""Documents of TFDS datasets: `tfds:NAME` or `tfds:NAME/CONFIG:VERSION`, as `--input` takes them.

    tfds:scientific_papers/pubmed?text=abstract,article
    tfds:my_papers:1.0.0?split=train[:10%]&title=heading&data_dir=/data/tfds
    tfds:/data/tfds/my_papers/1.0.0

What follows the "?" says which split (default train; slices as TFDS has them), which features hold
the text (default `text`; several become sections, in this order), the title, the id and the PMID
(default: the features of these names, where there are such), and where TFDS keeps its data (default:
$TFDS_DATA_DIR or ~/tensorflow_datasets). A feature that is a list of strings gives a line of each.

Only what is prepared already is read, from its files (.tfrecord or .array_record): nothing is
downloaded, none of the dataset's code is run, and TensorFlow is not needed.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.data.readers.document import TFDS, Document, parse_positive_int, text_id

_SETTINGS = ("split", "text", "title", "id", "pmid", "data_dir")
_OF_SHARDS = ("text", "title", "id", "pmid", "skip", "take")
_RECORDS_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class _Fields:
    """The features that hold each part of a document."""

    text: tuple[str, ...]
    title: str
    id: str
    pmid: str


def shards(name: str) -> list[str]:
    """One name for each file that the dataset's split has: what `read` takes.

    Raises:
      UserError: not prepared, no such split, an unknown setting.
    """
    location, settings = _parse(name, _SETTINGS)
    builder = _builder(location, settings.pop("data_dir", None), name)
    split = settings.pop("split", "train")
    try:
        instructions = builder.info.splits[split].file_instructions
    except (KeyError, ValueError) as error:
        known = ", ".join(builder.info.splits) or "none"
        raise UserError(f"{name}: no split {split!r}; it has {known}") from error
    _fields(settings, builder.info.features, name)
    found = []
    for part in instructions:
        taken = {} if part.takes_all and not part.skip else {"skip": part.skip, "take": part.take}
        query = "&".join(f"{key}={value}" for key, value in (settings | taken).items())
        found.append(f"{TFDS}{os.fspath(part.filename)}" + (f"?{query}" if query else ""))
    return found


def path_of(shard: str) -> str:
    """The file behind a name that `shards` gave."""
    return _parse(shard, _OF_SHARDS)[0]


def read(shard: str) -> Iterator[Document]:
    """The documents of a name that `shards` gave, in order.

    Raises:
      UserError: a damaged or missing file.
    """
    path, settings = _parse(shard, _OF_SHARDS)
    info = _builder(os.path.dirname(path), None, shard).info
    fields = _fields(settings, info.features, shard)
    skip = int(settings.get("skip", 0))
    wanted = int(settings.get("take", _examples_in(path, info, shard) - skip))
    count = 0
    for example in itertools.islice(_reader(path)(path), skip, skip + wanted):
        yield _document(info.features.deserialize_example_np(example), fields, info.full_name)
        count += 1
    if count != wanted:
        raise UserError(f"{path}: cut short: {skip + count} examples; wanted {skip + wanted}; copy or make it again")


def _examples_in(path: str, info: Any, name: str) -> int:
    for split in info.splits.values():
        for file, count in zip(split.filenames, split.shard_lengths, strict=True):
            if file == os.path.basename(path):
                return count
    raise UserError(f"{name}: no shard of the dataset in its folder; give the dataset's name or folder alone")


def _parse(name: str, known: Container[str]) -> tuple[str, dict[str, str]]:
    location, _, query = name.removeprefix(TFDS).partition("?")
    settings = dict(pair.split("=", 1) if "=" in pair else (pair, "") for pair in query.split("&") if pair)
    if strange := [key for key in settings if key not in known]:
        raise UserError(f"{name}: no setting {strange[0]!r}; there are {', '.join(_SETTINGS)}, as in ?split=train")
    if empty := [key for key, value in settings.items() if not value]:
        raise UserError(f"{name}: no value for {empty[0]!r}; wanted such as ?{empty[0]}=...")
    return location, settings


def _builder(location: str, data_dir: str | None, name: str) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, read_only_builder

    is_folder = location.startswith(("/", ".", "~")) or "://" in location
    try:
        if is_folder:
            return tfds.builder_from_directory(os.path.expanduser(location))
        return read_only_builder.builder_from_files(location, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, dataset_info.DatasetInfoFileError) as error:
        if is_folder:
            raise UserError(f"{name}: {location} holds no dataset that TFDS prepared; check the path") from error
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"{name}: TFDS has not prepared it here (or under another name, config or version); nothing is "
            f"downloaded unasked: run tfds build {location}{where}, or name its folder: {TFDS}/path/to/{location}"
        ) from error


def _fields(settings: Mapping[str, str], features: Mapping[str, Any], name: str) -> _Fields:
    fields = _Fields(
        tuple(settings.get("text", "text").split(",")),
        *(settings.get(key, key if key in features else "") for key in ("title", "id", "pmid")),
    )
    for feature in (*fields.text, fields.title, fields.id, fields.pmid):
        if feature and feature not in features:
            raise UserError(
                f"{name}: no feature {feature!r}; it has {', '.join(sorted(features))}; name those that hold the "
                "text, as in ?text=abstract,article"
            )
    return fields


def _document(example: Mapping[str, Any], fields: _Fields, source: str) -> Document:
    text = {feature: _text(example[feature]) for feature in (*fields.text, fields.title, fields.id) if feature}
    document = Document(
        id=text.get(fields.id, ""),
        pmid=parse_positive_int(_text(example[fields.pmid])) if fields.pmid else None,
        title=text.get(fields.title, ""),
        sections=tuple((None, text[feature]) for feature in fields.text),
        year=None,
        source=source,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list | np.ndarray) and np.ndim(value):
        return "\n".join(map(_text, value))
    return str(value)


def _reader(path: str) -> Callable[[str], Iterator[bytes]]:
    kinds = {".tfrecord": tfrecord.iterate_records, ".array_record": _read_array_record}
    for kind, reader in kinds.items():
        if kind in os.path.basename(path):
            return reader
    raise UserError(f"{path}: a kind of file that is not read here; wanted {' or '.join(kinds)}")


def _read_array_record(path: str) -> Iterator[bytes]:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise UserError(f"{path}: needs the package array_record ({error}); pip install array_record") from error
    if (local := files.local_path(path)) is None:
        raise UserError(f"{path}: array_record files are read from local disks alone; copy the dataset here")
    files.size(local)  # the file is there
    try:
        reader = array_record_module.ArrayRecordReader(local)
        count = reader.num_records()
        for start in range(0, count, _RECORDS_AT_ONCE):
            yield from reader.read(start, min(start + _RECORDS_AT_ONCE, count))
        reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the dataset again with tfds build") from error
