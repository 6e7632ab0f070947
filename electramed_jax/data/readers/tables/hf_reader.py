"""Hugging Face datasets: `--input hf:NAME` from the local cache, and folders that `datasets.save_to_disk` wrote.

    hf:allenai/scirepeval?config=search&split=train&text=abstract&title=title
    hf:/data/my_dataset                    a folder of save_to_disk; the prefix may be left out
    hf:/data/my_dataset_dict?split=train

Settings after the "?":

- `split`: default train;
- `config`: of a dataset in the cache;
- `text`, `title`, `id`: the columns with these; several for `text`, separated by commas (default: common names, as in
  `record_fields`, or the options of the command line).

Nothing is downloaded and no code of a dataset is run: a dataset in the cache was prepared by
`datasets.load_dataset(NAME)` before. Its Arrow files are read in batches.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Container, Iterator
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.tables import arrow_table

HF_PREFIX = "hf:"
STATE_FILE, SPLITS_FILE = "state.json", "dataset_dict.json"

_COLUMNS = ("text", "title", "id")
_SETTINGS = ("split", "config", *_COLUMNS)
_SHARD_SETTINGS = ("source", *_COLUMNS)


def is_saved_dataset(path: str) -> bool:
    """Returns whether a path is a folder that `save_to_disk` wrote."""
    return any(files.exists(files.join(path, name)) for name in (STATE_FILE, SPLITS_FILE))


def find_shards(name: str) -> list[str]:
    """Returns a name for each Arrow file of the split, for `read`.

    Raises:
      UserError: the dataset is neither a folder of `save_to_disk` nor in the cache, or a setting is unknown.
    """
    location, settings = _parse(name, _SETTINGS)
    split = settings.pop("split", "train")
    config = settings.pop("config", None)
    if is_saved_dataset(location):
        source, paths = os.path.basename(location.rstrip("/")), _saved_files(location, split, name)
    elif files.exists(location):
        raise UserError(f"{name}: not a folder that datasets.save_to_disk wrote ({STATE_FILE} is missing)")
    else:
        source, paths = location, _cached_files(location, config, split, name)
    query = "&".join(f"{key}={value}" for key, value in {"source": source, **settings}.items())
    return [f"{HF_PREFIX}{path}?{query}" for path in paths]


def shard_path(shard: str) -> str:
    """Returns the file behind a name that `find_shards` returned."""
    return _parse(shard, _SHARD_SETTINGS)[0]


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the shard `errors.path`, a name that `find_shards` returned.

    Raises:
      UserError: no column has text; a missing file; damage, if `errors` is strict.
    """
    path, settings = _parse(errors.path, _SHARD_SETTINGS)
    columns: dict[str, Any] = {f"{part}_field": settings[part] for part in _COLUMNS if part in settings}
    file_errors = dataclasses.replace(errors, path=path)
    yield from arrow_table.read_rows(file_errors, dataclasses.replace(options, **columns), settings["source"])


def _saved_files(folder: str, split: str, name: str) -> list[str]:
    """Returns the Arrow files of a folder of `save_to_disk`."""
    if files.exists(files.join(folder, SPLITS_FILE)):
        splits = files.read_json(files.join(folder, SPLITS_FILE)).get("splits", [])
        if split not in splits:
            raise UserError(f"{name}: no split {split!r}; it has {', '.join(splits) or 'none'}; use ?split=...")
        folder = files.join(folder, split)
    state = files.read_json(files.join(folder, STATE_FILE))
    try:
        names = [os.path.basename(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/{STATE_FILE}: not written by datasets.save_to_disk; save the dataset again"
        ) from error
    return [files.join(folder, file) for file in names]


def _cached_files(dataset: str, config: str | None, split: str, name: str) -> list[str]:
    """Returns the Arrow files of a dataset that `load_dataset` prepared in the cache of this machine."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: needs the package datasets ({error}); pip install 'electramed_jax[hf]'") from error
    builder = _cached_builder(datasets, dataset, config, name)
    if split not in (builder.info.splits or {}):
        known = ", ".join(builder.info.splits or {}) or "none"
        raise UserError(f"{name}: no split {split!r} in the cache; it has {known}; use ?split=...")
    found = builder.as_dataset(split).cache_files
    return [file["filename"] for file in found]


def _cached_builder(datasets: Any, dataset: str, config: str | None, name: str) -> Any:
    offline = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        builder = datasets.load_dataset_builder(dataset, config)
        if builder.info.splits is None or not files.exists(builder.cache_dir):
            raise FileNotFoundError(builder.cache_dir)
        return builder
    except Exception as error:  # the library raises many types for a dataset that is not there
        reason = str(error).partition("\n")[0][:200]
        raise UserError(
            f"{name}: not in the cache of datasets on this machine ({reason}); nothing is downloaded: prepare it with "
            f"datasets.load_dataset({dataset!r}), or give a folder of save_to_disk"
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline


def _parse(name: str, known: Container[str]) -> tuple[str, dict[str, str]]:
    location, _, query = name.removeprefix(HF_PREFIX).partition("?")
    settings = {key: value for key, _, value in (pair.partition("=") for pair in query.split("&") if pair)}
    if unknown := [key for key in settings if key not in known]:
        raise UserError(f"{name}: no setting {unknown[0]!r}; wanted {', '.join(_SETTINGS)}, as in ?split=train")
    if empty := [key for key, value in settings.items() if not value]:
        raise UserError(f"{name}: no value for {empty[0]!r}; wanted ?{empty[0]}=...")
    return os.path.expanduser(location), settings
