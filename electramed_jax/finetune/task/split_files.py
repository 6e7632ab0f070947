"""The files of a task's splits: found in a folder by their names, read without surprises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.dataset.sampler import permutation
from electramed_jax.finetune.task.task import DEV, SPLITS, TRAIN

NAMES = {"train": ("train", "training"), "dev": ("dev", "devel", "development", "valid", "validation", "val"),
         "test": ("test",)}  # fmt: skip
Record = TypeVar("Record")


def find(folder: str, chosen: Mapping[str, str], endings: Sequence[str]) -> dict[str, str]:
    """The path of each split that there is; of train always, and of dev unless it is left out.

    Args:
      folder: where a file "train.txt" or the like is looked for; "" where every file is chosen.
      chosen: files given by the user, by split; "" or missing: looked for.
      endings: that the files may have, such as "txt".

    Raises:
      UserError: no training file, or two that could be meant.
    """
    found = {split: path for split, path in chosen.items() if path}
    if folder:
        if not files.is_dir(folder):
            raise UserError(f"{folder}: no such folder; wanted the corpus's, with train, dev and test files")
        there = set(files.list_dir(folder))
        for split in SPLITS:
            if split not in found:
                names = sorted({f"{name}.{ending}" for name in NAMES[split] for ending in endings} & there)
                if len(names) > 1:
                    said = " and ".join(names)
                    raise UserError(f"{folder}: has {said}; say which is meant with --config.task.{split}=FILE")
                if names:
                    found[split] = files.join(folder, names[0])
    if TRAIN not in found:
        wanted = ", ".join(f"train.{ending}" for ending in endings)
        raise UserError(
            f"no training file in {folder!r}; wanted {wanted}; "
            "add --config.task.data=FOLDER, or --config.task.train=FILE"
        )
    return {split: found[split] for split in SPLITS if split in found}


def lines(path: str) -> list[str]:
    """The lines of a text file: UTF-8 with or without a byte-order mark, any line ends.

    Raises:
      UserError: nothing in it.
    """
    text = files.read_text(path).removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise UserError(f"{path}: empty; copy or download it again")
    return text.removesuffix("\n").split("\n")


def reject(path: str, line: int, why: str) -> NoReturn:
    """Raises the UserError of a line (from 1) that cannot be used."""
    raise UserError(f"{path}, line {line}: {why}")


def with_held_out(splits: dict[str, list[Record]], fraction: float) -> dict[str, list[Record]]:
    """The splits with a dev split: the corpus's own, or a fraction of the training records, always the same ones.

    Raises:
      UserError: no dev split and no fraction.
    """
    if DEV in splits:
        return splits
    if not fraction:
        raise UserError(
            "the corpus has no dev file, by which the best checkpoint is chosen; add --config.task.dev=FILE, or hold "
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


def account(paths: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """{split: {"path", "bytes", "sha256"}}, of the files as they are."""
    return {
        split: {"path": path, "bytes": files.size(path), "sha256": files.sha256(path)} for split, path in paths.items()
    }


def counts(lengths: Sequence[int]) -> str:
    """ "median 24, longest 312", of a few numbers to be told."""
    return f"median {int(np.median(lengths))}, longest {max(lengths)}"
