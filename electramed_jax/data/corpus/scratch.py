"""What the stages of `build_documents` leave each other in the scratch folder, beside the keys."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir as corpus
from electramed_jax.data.corpus import dedup
from electramed_jax.data.parallel import shuffle_files as shuffle

_GZIP_LEVEL = 1  # well under half the time of the level of parts, a fifth larger


@contextlib.contextmanager
def write_lines(folder: str, number: int) -> Iterator[IO[bytes]]:
    """A file for the lines that `reading.read_source` makes of input `number`."""
    with files.atomic_write(_lines(folder, number)) as file, corpus.gzip_writer(file, _GZIP_LEVEL) as lines:
        yield lines


@contextlib.contextmanager
def read_lines(folder: str, number: int) -> Iterator[Iterable[bytes]]:
    """The lines of input `number`."""
    with files.open_read(_lines(folder, number)) as file, gzip.GzipFile(fileobj=file) as lines:
        yield lines


def remove_lines(folder: str, number: int) -> None:
    """Makes room, once the lines of input `number` are in their parts."""
    files.remove(_lines(folder, number))


@dataclasses.dataclass(frozen=True)
class Losses:
    """Documents that lost to others: found group by group of keys, asked for input by input.

    Attributes:
      folder: where each group has a file.
      inputs: how many there are.
      groups: names of those that count.
    """

    folder: str
    inputs: int
    groups: tuple[str, ...] = ()

    def and_of(self, groups: Iterable[str]) -> Losses:
        """These and those of the groups."""
        return dataclasses.replace(self, groups=(*self.groups, *groups))

    def has(self, group: str) -> bool:
        """Whether a group has been decided."""
        return files.exists(self._path(group))

    def write(self, group: str, lost: np.ndarray) -> None:
        """Puts down that a group has lost dedup.LOSS[n]."""
        shuffle.write(self._path(group), lost, lost["input"], self.inputs)

    def of(self, number: int) -> dict[int, int]:
        """{row: number of the reason} of input `number`."""
        lost = shuffle.read(map(self._path, self.groups), dedup.LOSS, self.inputs, number, number + 1)
        return dict(zip(lost["row"].tolist(), lost["reason"].tolist(), strict=True))

    def _path(self, group: str) -> str:
        return files.join(self.folder, f"losses-{group}")


def _lines(folder: str, number: int) -> str:
    return files.join(folder, f"lines-{number:05d}.gz")
