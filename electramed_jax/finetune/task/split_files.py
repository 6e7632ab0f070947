"""The files of a task's splits: found by name, read, described, and a dev split held out if there is none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.decompression import MAX_WHOLE_BYTES
from electramed_jax.data.dataset.sampler import permutation
from electramed_jax.data.readers.document import MAX_LINE_BYTES
from electramed_jax.finetune.task.task import DEV, SPLITS, TRAIN

NAMES = {"train": ("train", "training"), "dev": ("dev", "devel", "development", "valid", "validation", "val"),
         "test": ("test",)}  # fmt: skip
Record = TypeVar("Record")


def find_split_files(folder: str, chosen: Mapping[str, str], endings: Sequence[str]) -> dict[str, str]:
    """Returns the path of each split that has a file or folder; "train" always has one.

    Args:
      folder: searched for "train.txt", "dev.txt" and so on, then for folders "train", "dev" and so on; "" if every
        file is chosen.
      chosen: files given by the user, by split; a split that is "" or missing is searched for.
      endings: allowed file endings, such as "txt".

    Raises:
      UserError: there is no training file, or several files match a split.
    """
    paths = {split: path for split, path in chosen.items() if path}
    if folder:
        if not files.is_dir(folder):
            raise UserError(f"{folder}: no such folder; wanted a folder with train, dev and test files")
        listing = set(files.list_dir(folder))
        for split in SPLITS:
            if split not in paths:
                names = sorted({f"{name}.{ending}" for name in NAMES[split] for ending in endings} & listing)
                names = names or [name for name in NAMES[split] if name in listing and _has_files(folder, name)]
                if len(names) > 1:
                    several = " and ".join(names)
                    raise UserError(f"{folder}: has {several}; choose one with --config.task.{split}=FILE")
                if names:
                    paths[split] = files.join(folder, names[0])
    if TRAIN not in paths:
        wanted = ", ".join(f"train.{ending}" for ending in endings)
        raise UserError(
            f"no training file in {folder!r}; wanted {wanted}; "
            "add --config.task.data=FOLDER, or --config.task.train=FILE"
        )
    return {split: paths[split] for split in SPLITS if split in paths}


def read_lines(path: str) -> list[str]:
    """Returns the lines of a text file: UTF-8 with or without a byte-order mark, any line ends.

    Raises:
      UserError: the file is empty, larger than MAX_WHOLE_BYTES or not UTF-8, or a line is longer than MAX_LINE_BYTES.
    """
    if files.size(path) > MAX_WHOLE_BYTES:
        raise UserError(f"{path}: more than {MAX_WHOLE_BYTES >> 20:,} MiB, too large to be read whole; divide the file")
    lines: list[str] = []
    with files.open_read(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number = len(lines) + 1
            if len(line) > MAX_LINE_BYTES:
                reject_line(path, number, f"longer than {MAX_LINE_BYTES >> 20} MiB; wanted one record per line")
            try:
                text = line.decode("utf-8" if lines else "utf-8-sig")
            except UnicodeDecodeError as error:
                reject_line(
                    path,
                    number,
                    f"not UTF-8 text (byte {error.start} of the line); convert it, e.g. with iconv -t utf-8",
                )
            lines += text.removesuffix("\n").removesuffix("\r").split("\r")
    if not any(line.strip() for line in lines):
        raise UserError(f"{path}: empty; copy or download it again")
    return lines


def reject_line(path: str, line: int, why: str) -> NoReturn:
    """Raises a UserError that names the file and the line (from 1)."""
    raise UserError(f"{path}, line {line}: {why}")


def hold_out_dev(splits: dict[str, list[Record]], fraction: float) -> dict[str, list[Record]]:
    """Returns the splits with a dev split: their own, or else a fraction of the training records, always the same ones.

    Raises:
      UserError: there is neither a dev split nor a fraction.
    """
    if DEV in splits:
        return splits
    if not fraction:
        raise UserError(
            "the corpus has no dev file; the best checkpoint is chosen on dev: add --config.task.dev=FILE, or hold "
            "out a tenth of the training examples with --config.task.dev_fraction=0.1"
        )
    records = splits[TRAIN]
    held_out = set(permutation((0, 0), (0, 0), len(records))[: max(1, round(fraction * len(records)))].tolist())
    kept = [record for number, record in enumerate(records) if number not in held_out]
    if not kept:
        raise UserError(f"{len(records)} training examples are too few to hold some out; add --config.task.dev=FILE")
    return {TRAIN: kept, DEV: [records[number] for number in sorted(held_out)]} | {
        split: records for split, records in splits.items() if split != TRAIN
    }


def describe_files(paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Returns {split: {"path", "bytes", "sha256"}}; of a folder the sum, and a hash of the names and hashes."""
    return {split: {"path": path} | _describe(path) for split, path in paths.items()}


def list_files(folder: str) -> list[str]:
    """Returns the paths of all files below a folder, sorted, without hidden ones."""
    found = []
    for name in files.list_dir(folder):
        path = files.join(folder, name)
        if not name.startswith("."):
            found += list_files(path) if files.is_dir(path) else [path]
    return found


def _describe(path: str) -> dict[str, Any]:
    if not files.is_dir(path):
        return {"bytes": files.size(path), "sha256": files.sha256(path)}
    listed = list_files(path)
    lines = "".join(f"{files.sha256(one)}  {one.removeprefix(path).strip('/')}\n" for one in listed)
    return {"bytes": sum(map(files.size, listed)), "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def _has_files(folder: str, name: str) -> bool:
    path = files.join(folder, name)
    return files.is_dir(path) and bool(list_files(path))
