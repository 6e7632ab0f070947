"""Stages of `build_documents` that know neither pool nor pipeline: one input to lines and keys, its lines to parts."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, decontaminate, dedup, stages
from electramed_jax.data.corpus.filtering import FilterConfig, InputStats, read_source, remaining
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.parallel import shuffle_files

_GZIP_LEVEL = 1  # well under half the time of the level of parts, a fifth larger

_KEYS_AT_ONCE = 4096


def filter_input(
    work: str, number: int, source: Source, choices: FilterConfig, index: str | None, tally: InputStats
) -> Iterator[np.ndarray]:
    """Puts the lines of one input into a file of `scratch`, whole after the last of what it yields: their dedup.KEY[n].

    Args:
      index: the path of the index of what is held out.
      tally: see `reading.read_source`.
    """
    waiting = []
    evaluation = decontaminate.load(index) if index else None
    with stages.write_lines(work, number) as lines:
        for key, line in read_source(source, number, choices, evaluation, tally):
            lines.write(line)
            waiting.append(key)
            if len(waiting) == _KEYS_AT_ONCE:
                yield np.array(waiting, dedup.KEY_DTYPE)
                waiting.clear()
        yield np.array(waiting, dedup.KEY_DTYPE)


def slots_of_keys(keys: np.ndarray) -> np.ndarray:
    """int64[n]: which of shuffle.HASH_SLOTS each of dedup.KEY[n] falls into; keys that must meet, into one."""
    return shuffle_files.hash_slots(dedup.group_hashes(keys))


def write_input(output_dir: str, work: str, number: int, lost: Mapping[int, int]) -> dict[str, Any]:
    """Puts the parts of one input in place; its lines stay. As `write_parts`."""
    staged = {split: files.join(work, f"{split}-{number:05d}") for split in corpus_dir.SPLITS}
    with stages.open_lines(work, number) as lines:
        written = write_parts(lines, lost, staged)
    for split, path in staged.items():
        files.make_dirs(files.join(output_dir, split))
        files.move(path, corpus_dir.part_path(output_dir, split, number))
    return written


def write_parts(lines: Iterable[bytes], lost: Mapping[int, int], paths: Mapping[str, str]) -> dict[str, Any]:
    """Writes the part of each split of one input from all its lines, in order.

    Args:
      lost: row -> number of the reason, as in `dedup.REASONS`.

    Returns:
      What `documents_account.account` takes: {"splits": figures of each part, "lost": reason -> documents}.
    """
    with contextlib.ExitStack() as stack:
        parts = {split: stack.enter_context(corpus_dir.PartWriter(path)) for split, path in paths.items()}
        for _, split, line in remaining(lines, lost):
            parts[split].write(line)
    reasons = Counter(dedup.REASONS[reason] for reason in lost.values())
    return {"splits": {split: part.figures() for split, part in parts.items()}, "lost": dict(sorted(reasons.items()))}


@contextlib.contextmanager
def write_lines(folder: str, number: int) -> Iterator[IO[bytes]]:
    """A file for the lines that `reading.read_source` makes of input `number`."""
    with files.atomic_write(_lines(folder, number)) as file, corpus_dir.gzip_writer(file, _GZIP_LEVEL) as lines:
        yield lines


@contextlib.contextmanager
def open_lines(folder: str, number: int) -> Iterator[Iterable[bytes]]:
    """The lines of input `number`."""
    with files.open_read(_lines(folder, number)) as file, gzip.GzipFile(fileobj=file) as lines:
        yield lines


def remove_lines(folder: str, number: int) -> None:
    """Makes room, once the lines of input `number` are in their parts."""
    files.remove(_lines(folder, number))


@dataclasses.dataclass(frozen=True)
class DroppedRows:
    """Documents that lost to others: found group by group of keys, asked for input by input.

    Attributes:
      folder: where each group has a file.
      inputs: how many there are.
      groups: names of those that count.
    """

    folder: str
    inputs: int
    groups: tuple[str, ...] = ()

    def and_of(self, groups: Iterable[str]) -> DroppedRows:
        """These and those of the groups."""
        return dataclasses.replace(self, groups=(*self.groups, *groups))

    def has(self, group: str) -> bool:
        """Whether a group has been decided."""
        return files.exists(self._path(group))

    def write(self, group: str, lost: np.ndarray) -> None:
        """Puts down that a group has lost dedup.LOSS[n]."""
        shuffle_files.write(self._path(group), lost, lost["input"], self.inputs)

    def of(self, number: int) -> dict[int, int]:
        """{row: number of the reason} of input `number`."""
        lost = shuffle_files.read(map(self._path, self.groups), dedup.DROPPED_DTYPE, self.inputs, number, number + 1)
        return dict(zip(lost["row"].tolist(), lost["reason"].tolist(), strict=True))

    def _path(self, group: str) -> str:
        return files.join(self.folder, f"losses-{group}")


def _lines(folder: str, number: int) -> str:
    return files.join(folder, f"lines-{number:05d}.gz")
