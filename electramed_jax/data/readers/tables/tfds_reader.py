"""TFDS reader: the documents of a prepared dataset, `--input tfds:NAME` or `tfds:NAME/CONFIG:VERSION`.

    tfds:scientific_papers/pubmed?text=abstract,article
    tfds:my_papers:1.0.0?split=train[:10%]&title=heading&data_dir=/data/tfds
    tfds:/data/tfds/my_papers/1.0.0

Settings after the "?":

- `split`: default train; slices as in TFDS;
- `text`: the features with the text (default `text`); several features become sections, in this order;
- `title`, `id`, `pmid`: the features with these (default: the features of these names, if there are any);
- `data_dir`: the TFDS data folder (default $TFDS_DATA_DIR or ~/tensorflow_datasets).

A feature that is a list of strings becomes one line per string.

The reader reads the files of a dataset that is already prepared (.tfrecord or .array_record). It downloads nothing,
runs no code of the dataset, and does not need TensorFlow.
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
from electramed_jax.data.readers.document import Document, ReadErrors, parse_positive_int, text_id

TFDS_PREFIX = "tfds:"
_SETTINGS = ("split", "text", "title", "id", "pmid", "data_dir")
_SHARD_SETTINGS = ("text", "title", "id", "pmid", "skip", "take")
_BATCH_RECORDS = 256


@dataclasses.dataclass(frozen=True)
class _Fields:
    """Names of the features with each part of a document; "" for none."""

    text: tuple[str, ...]
    title: str
    id: str
    pmid: str


def find_shards(name: str) -> list[str]:
    """Returns a name for each file of the dataset's split, for `read`.

    Raises:
      UserError: the dataset is not prepared, has no such split or feature, or a setting is unknown.
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
        subset = {} if part.takes_all and not part.skip else {"skip": part.skip, "take": part.take}
        query = "&".join(f"{key}={value}" for key, value in (settings | subset).items())
        found.append(f"{TFDS_PREFIX}{os.fspath(part.filename)}" + (f"?{query}" if query else ""))
    return found


def shard_path(shard: str) -> str:
    """Returns the file behind a name that `find_shards` returned."""
    return _parse(shard, _SHARD_SETTINGS)[0]


def read(errors: ReadErrors, *_: object) -> Iterator[Document]:
    """Yields the documents of the shard `errors.path`, a name that `find_shards` returned, in order.

    Raises:
      UserError: a damaged or missing file.
    """
    shard = errors.path
    path, settings = _parse(shard, _SHARD_SETTINGS)
    info = _builder(os.path.dirname(path), None, shard).info
    fields = _fields(settings, info.features, shard)
    skip = int(settings.get("skip", 0))
    wanted = int(settings.get("take", _num_examples(path, info, shard) - skip))
    count = 0
    for example in itertools.islice(_reader(path)(path), skip, skip + wanted):
        yield _document(info.features.deserialize_example_np(example), fields, info.full_name)
        count += 1
    if count != wanted:
        raise UserError(
            f"{path}: cut short: got {skip + count} examples, wanted {skip + wanted}; copy or prepare it again"
        )


def _num_examples(path: str, info: Any, name: str) -> int:
    for split in info.splits.values():
        for file, count in zip(split.filenames, split.shard_lengths, strict=True):
            if file == os.path.basename(path):
                return count
    raise UserError(
        f"{name}: not a shard of the dataset in its folder; give only the name or the folder of the dataset"
    )


def _parse(name: str, known: Container[str]) -> tuple[str, dict[str, str]]:
    location, _, query = name.removeprefix(TFDS_PREFIX).partition("?")
    settings = {key: value for key, _, value in (pair.partition("=") for pair in query.split("&") if pair)}
    if unknown := [key for key in settings if key not in known]:
        raise UserError(f"{name}: no setting {unknown[0]!r}; wanted {', '.join(_SETTINGS)}, as in ?split=train")
    if empty := [key for key, value in settings.items() if not value]:
        raise UserError(f"{name}: no value for {empty[0]!r}; wanted ?{empty[0]}=...")
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
            raise UserError(f"{name}: {location} is not a dataset that TFDS prepared; check the path") from error
        where = f" --data_dir={data_dir}" if data_dir else ""
        raise UserError(
            f"{name}: not prepared by TFDS here (or with another name, config or version); nothing is "
            f"downloaded: run tfds build {location}{where}, or give its folder: {TFDS_PREFIX}/path/to/{location}"
        ) from error


def _fields(settings: Mapping[str, str], features: Mapping[str, Any], name: str) -> _Fields:
    fields = _Fields(
        tuple(settings.get("text", "text").split(",")),
        *(settings.get(key, key if key in features else "") for key in ("title", "id", "pmid")),
    )
    for feature in (*fields.text, fields.title, fields.id, fields.pmid):
        if feature and feature not in features:
            raise UserError(
                f"{name}: no feature {feature!r}; it has {', '.join(sorted(features))}; name those with the "
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
    raise UserError(f"{path}: unknown shard format; wanted {' or '.join(kinds)}")


def _read_array_record(path: str) -> Iterator[bytes]:
    try:
        from array_record.python import array_record_module
    except ImportError as error:
        raise UserError(f"{path}: needs the package array_record ({error}); pip install array_record") from error
    if (local := files.local_path(path)) is None:
        raise UserError(f"{path}: array_record files are read from local disks only; copy the dataset to one")
    files.size(local)  # raises if the file is missing
    try:
        reader = array_record_module.ArrayRecordReader(local)
        count = reader.num_records()
        for start in range(0, count, _BATCH_RECORDS):
            yield from reader.read(start, min(start + _BATCH_RECORDS, count))
        reader.close()
    except (RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the dataset again with tfds build") from error
