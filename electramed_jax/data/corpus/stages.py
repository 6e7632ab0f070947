"""Stages of `build` without pool or pipeline: filter one input to lines and keys, write its parts; `DroppedRows`."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, decontaminate, dedup
from electramed_jax.data.corpus.filtering import FilterConfig, InputStats, read_source, remaining_lines
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.parallel import shuffle_files

_GZIP_LEVEL = 1  # less than half the time of the level of the parts, 20 % larger

_BATCH_KEYS = 4096


def filter_input(
    work: str, number: int, source: Source, config: FilterConfig, index_path: str | None, stats: InputStats
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields keys and links of one input, KEY_DTYPE[n] and LINK_DTYPE[m], and writes its lines.

    The file of lines is complete after the last yield.

    Args:
      work: scratch folder.
      number: of the input.
      source: the input.
      config: what is kept.
      index_path: saved `decontaminate.EvaluationIndex`, if any.
      stats: updated in place.
    """
    batch: list[tuple[int, ...]] = []
    links: list[tuple[int, ...]] = []
    index = decontaminate.load_index(index_path) if index_path else None
    with write_lines(work, number) as lines:
        for key, line, document_links in read_source(source, number, config, index, stats):
            lines.write(line)
            batch.append(key)
            links += document_links
            if len(batch) == _BATCH_KEYS:
                yield np.array(batch, dedup.KEY_DTYPE), np.array(links, dedup.LINK_DTYPE)
                batch.clear()
                links.clear()
        yield np.array(batch, dedup.KEY_DTYPE), np.array(links, dedup.LINK_DTYPE)


def key_slots(keys: np.ndarray) -> np.ndarray:
    """Returns int64[n], the slot below HASH_SLOTS of each of KEY_DTYPE[n]; keys that are compared share a slot."""
    return shuffle_files.hash_slots(dedup.group_hashes(keys))


def link_slots(links: np.ndarray) -> np.ndarray:
    """Returns int64[n], the slot below HASH_SLOTS of each of LINK_DTYPE[n]; that of a PMID is that of its keys."""
    return shuffle_files.hash_slots(links["article"])


def write_input(
    output_dir: str, work: str, number: int, dropped: Mapping[int, int], with_articles: bool
) -> dict[str, Any]:
    """Writes the parts of one input to `output_dir` and keeps its lines; arguments and result as in `write_parts`."""
    staged = {split: files.join(work, f"{split}-{number:05d}") for split in corpus_dir.SPLITS}
    with open_lines(work, number) as lines:
        written = write_parts(lines, dropped, staged, with_articles)
    for split, path in staged.items():
        files.make_dirs(files.join(output_dir, split))
        files.move(path, corpus_dir.part_path(output_dir, split, number))
    return written


def write_parts(
    lines: Iterable[bytes], dropped: Mapping[int, int], paths: Mapping[str, str], with_articles: bool = False
) -> dict[str, Any]:
    """Writes the part of each split of one input.

    Args:
      lines: all lines of the input, in order.
      dropped: row -> index in `dedup.REASONS`.
      paths: split -> path of its part.
      with_articles: whether the folder has lines of articles, so that all its lines need their keys.

    Returns:
      The counts for `stats.corpus_stats`: {"splits": split -> `PartWriter.stats`, "lost": reason -> documents,
      "licenses": licence -> documents written, "without_abstract": number of full texts}.
    """
    licenses: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        parts = {split: stack.enter_context(corpus_dir.PartWriter(path)) for split, path in paths.items()}
        for _, split, licence, line in remaining_lines(lines, dropped):
            parts[split].write(corpus_dir.pad_line(line) if with_articles else line)
            licenses[licence] += 1
    reasons = Counter(dedup.REASONS[reason] for reason in dropped.values() if reason not in dedup.NOT_DROPPED)
    return {
        "splits": {split: part.stats() for split, part in parts.items()},
        "lost": dict(sorted(reasons.items())),
        "licenses": dict(sorted(licenses.items())),
        "without_abstract": sum(reason == dedup.WITHOUT_ABSTRACT for reason in dropped.values()),
    }


@contextlib.contextmanager
def write_lines(folder: str, number: int) -> Iterator[gzip.GzipFile]:
    """Opens a file for the lines that `filtering.read_source` yields for input `number`."""
    with files.atomic_write(_lines_path(folder, number)) as file, corpus_dir.gzip_writer(file, _GZIP_LEVEL) as lines:
        yield lines


@contextlib.contextmanager
def open_lines(folder: str, number: int) -> Iterator[Iterable[bytes]]:
    """Opens the lines of input `number`."""
    with files.open_read(_lines_path(folder, number)) as file, gzip.GzipFile(fileobj=file) as lines:
        yield lines


def remove_lines(folder: str, number: int) -> None:
    """Removes the lines of input `number`, once its parts are written."""
    files.remove(_lines_path(folder, number))


@dataclasses.dataclass(frozen=True)
class DroppedRows:
    """Rows dropped as duplicates: written per group of keys, read per input.

    Attributes:
      folder: contains one file per group.
      num_inputs: number of inputs.
      groups: names of the groups that `read_input` reads.
    """

    folder: str
    num_inputs: int
    groups: tuple[str, ...] = ()

    def with_groups(self, groups: Iterable[str]) -> DroppedRows:
        """Returns a copy that also reads `groups`."""
        return dataclasses.replace(self, groups=(*self.groups, *groups))

    def has_group(self, group: str) -> bool:
        """Returns whether a group was written."""
        return files.exists(self._path(group))

    def write_group(self, group: str, dropped: np.ndarray) -> None:
        """Writes the dropped rows of a group, DROPPED_DTYPE[n]."""
        shuffle_files.write(self._path(group), dropped, dropped["input"], self.num_inputs)

    def read_input(self, number: int) -> dict[int, int]:
        """Returns {row: index in `dedup.REASONS`} of input `number`."""
        paths = map(self._path, self.groups)
        dropped = shuffle_files.read(paths, dedup.DROPPED_DTYPE, self.num_inputs, number, number + 1)
        return dedup.reasons_by_row(dropped)

    def _path(self, group: str) -> str:
        return files.join(self.folder, f"losses-{group}")


def _lines_path(folder: str, number: int) -> str:
    return files.join(folder, f"lines-{number:05d}.gz")
