"""Stages of `build_documents` that know neither pool nor pipeline: one input to lines and keys, its lines to parts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir as corpus
from electramed_jax.data.corpus import decontaminate as held_out
from electramed_jax.data.corpus import dedup, scratch
from electramed_jax.data.corpus.filtering import Choices, Tally, read_source, remaining
from electramed_jax.data.corpus.inputs import Source
from electramed_jax.data.parallel import shuffle_files as shuffle

_KEYS_AT_ONCE = 4096


def read_lines(
    work: str, number: int, source: Source, choices: Choices, index: str | None, tally: Tally
) -> Iterator[np.ndarray]:
    """Puts the lines of one input into a file of `scratch`, whole after the last of what it yields: their dedup.KEY[n].

    Args:
      index: the path of the index of what is held out.
      tally: see `reading.read_source`.
    """
    waiting = []
    evaluation = held_out.load(index) if index else None
    with scratch.write_lines(work, number) as lines:
        for key, line in read_source(source, number, choices, evaluation, tally):
            lines.write(line)
            waiting.append(key)
            if len(waiting) == _KEYS_AT_ONCE:
                yield np.array(waiting, dedup.KEY)
                waiting.clear()
        yield np.array(waiting, dedup.KEY)


def slots_of_keys(keys: np.ndarray) -> np.ndarray:
    """int64[n]: which of shuffle.HASH_SLOTS each of dedup.KEY[n] falls into; keys that must meet, into one."""
    return shuffle.hash_slots(dedup.group_hashes(keys))


def write_input(output_dir: str, work: str, number: int, lost: Mapping[int, int]) -> dict[str, Any]:
    """Puts the parts of one input in place; its lines stay. As `write_parts`."""
    staged = {split: files.join(work, f"{split}-{number:05d}") for split in corpus.SPLITS}
    with scratch.read_lines(work, number) as lines:
        written = write_parts(lines, lost, staged)
    for split, path in staged.items():
        files.make_dirs(files.join(output_dir, split))
        files.move(path, corpus.part_path(output_dir, split, number))
    return written


def write_parts(lines: Iterable[bytes], lost: Mapping[int, int], paths: Mapping[str, str]) -> dict[str, Any]:
    """Writes the part of each split of one input from all its lines, in order.

    Args:
      lost: row -> number of the reason, as in `dedup.REASONS`.

    Returns:
      What `documents_account.account` takes: {"splits": figures of each part, "lost": reason -> documents}.
    """
    with contextlib.ExitStack() as stack:
        parts = {split: stack.enter_context(corpus.PartWriter(path)) for split, path in paths.items()}
        for _, split, line in remaining(lines, lost):
            parts[split].write(line)
    reasons = Counter(dedup.REASONS[reason] for reason in lost.values())
    return {"splits": {split: part.figures() for split, part in parts.items()}, "lost": dict(sorted(reasons.items()))}
