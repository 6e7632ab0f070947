"""Stages of `build` that find near-duplicates, between the comparison of texts and the writing of parts.

  signatures   `minhash.compute_signatures` of the remaining documents of one input: a file of signatures, and bands
  comparison   `near_duplicate_rows` of each group of equal bands: dropped rows

Signatures are kept on disk, 512 bytes per document; a process reads those of one group of equal bands at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, dedup, minhash, stages
from electramed_jax.data.corpus.filtering import remaining_lines
from electramed_jax.data.corpus.stages import DroppedRows
from electramed_jax.data.parallel import build_dir, shuffle_files
from electramed_jax.data.parallel.process_pool import ProcessPool

_SIGNATURE_BATCH = 1024
_COMPARE_BATCH = 16_384
_SIGNATURE_DTYPE = np.dtype(np.uint32)
_SIGNATURE_BYTES = minhash.PERMUTATIONS * _SIGNATURE_DTYPE.itemsize


def find_near_duplicates(
    pool: ProcessPool, dropped: DroppedRows, groups: Sequence[tuple[int, int]], threshold: float
) -> DroppedRows:
    """Adds the near-duplicates to the dropped rows.

    Args:
      pool: runs the tasks.
      dropped: the rows dropped so far.
      groups: hash slots [first, end) of each group.
      threshold: similarity from which a document is dropped.
    """
    rows = minhash.rows_per_band(threshold)
    bands = minhash.PERMUTATIONS // rows
    signature_tasks = [(dropped, number, rows) for number in range(dropped.num_inputs)]
    counts = list(
        pool.run(
            _write_input_signatures,
            signature_tasks,
            "computing signatures",
            inside="documents",
            count=lambda found: found["documents"],
        )
    )
    entries = [
        shuffle_files.file_path(_bands_prefix(dropped.folder, number), file)
        for number, input_counts in enumerate(counts)
        for file in range(input_counts["files_of_bands"])
    ]
    compare_tasks = [
        (
            entries,
            dropped,
            bands * shuffle_files.HASH_SLOTS,
            band * shuffle_files.HASH_SLOTS + first,
            end - first,
            threshold,
        )
        for band in range(bands)
        for first, end in groups
    ]
    return dropped.with_groups(pool.run(_compare, compare_tasks, "comparing signatures", unit="groups"))


def _write_input_signatures(dropped: DroppedRows, number: int, rows: int) -> dict[str, int]:
    """Writes the signatures and bands of one input; returns the counts."""
    work = dropped.folder
    done = files.join(work, f"signed-{number:05d}.json")
    if files.exists(done):
        return files.read_json(done, dict[str, int], advice=build_dir.ADVICE)
    count = 0
    bands = minhash.PERMUTATIONS // rows
    slots = functools.partial(band_slots, bands=bands)
    with shuffle_files.Writer(_bands_prefix(work, number), slots, bands * shuffle_files.HASH_SLOTS) as writer:
        for entries in write_signatures(work, number, dropped.read_input(number), rows):
            writer.write(entries)
            count += len(entries) // bands
    counts = {"documents": count, "files_of_bands": writer.files}
    files.write_json(done, counts)
    return counts


def write_signatures(work: str, number: int, dropped: Mapping[int, int], rows: int) -> Iterator[np.ndarray]:
    """Writes the signatures of the remaining documents of one input; the file is complete after the last yield.

    Args:
      work: scratch folder.
      number: of the input.
      dropped: rows to leave out.
      rows: signature values per band.

    Yields:
      minhash.BAND_DTYPE[n * bands], the bands of n documents, document by document.
    """
    count = 0
    with files.atomic_write(_signatures_path(work, number)) as file:
        for batch_rows, texts in _batches(work, number, dropped):
            signatures = np.array(list(minhash.compute_signatures(texts)), _SIGNATURE_DTYPE)
            file.write(signatures.tobytes())
            entries = np.empty((len(texts), minhash.PERMUTATIONS // rows), minhash.BAND_DTYPE)
            entries["hash"] = minhash.band_hashes(signatures, rows)
            entries["input"], entries["row"] = number, np.array(batch_rows)[:, None]
            entries["at"] = np.arange(count, count + len(texts))[:, None]
            yield entries.ravel()
            count += len(texts)


def band_slots(entries: np.ndarray, bands: int) -> np.ndarray:
    """Returns int64[n], the slot below bands * HASH_SLOTS of each of BAND_DTYPE[n]; equal bands share a slot."""
    return np.arange(len(entries)) % bands * shuffle_files.HASH_SLOTS + shuffle_files.hash_slots(entries["hash"])


def _batches(work: str, number: int, dropped: Mapping[int, int]) -> Iterator[tuple[list[int], list[str]]]:
    """Yields (rows, texts) of the remaining documents of one input in batches."""
    rows: list[int] = []
    texts: list[str] = []
    with stages.open_lines(work, number) as lines:
        for row, _, _, line in remaining_lines(lines, dropped):
            rows.append(row)
            texts.append(corpus_dir.from_line(line).text)
            if len(texts) == _SIGNATURE_BATCH:
                yield rows, texts
                rows, texts = [], []
    if texts:
        yield rows, texts


def _compare(
    entries: Sequence[str], dropped: DroppedRows, num_slots: int, first: int, count: int, threshold: float
) -> str:
    """Writes the dropped rows of the bands in `count` slots from `first`; returns the name of the group."""
    name = f"near-{first:06d}-{count:03d}"
    if not dropped.has_group(name):
        group = shuffle_files.read(entries, minhash.BAND_DTYPE, num_slots, first, first + count)
        dropped.write_group(name, near_duplicate_rows(dropped.folder, group, threshold))
    return name


def near_duplicate_rows(work: str, entries: np.ndarray, threshold: float) -> np.ndarray:
    """Returns dedup.DROPPED_DTYPE[m], the near-duplicates among the documents of BAND_DTYPE[n].

    A document is compared with the earlier ones that have an equal band, and appears once per such band.
    """
    found = [rows for group in minhash.group_by_hash(entries) for rows in _group_duplicates(work, group, threshold)]
    return dedup.dropped_rows(np.concatenate([np.empty(0, minhash.BAND_DTYPE), *found]), dedup.NEAR_DUPLICATE)


def _group_duplicates(work: str, group: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Yields the near-duplicates of earlier documents in one group BAND_DTYPE[m], in batches to bound memory."""
    head, rest = group[: minhash.MAX_COMPARED], group[minhash.MAX_COMPARED :]
    head_signatures = _read_signatures(head, work)
    yield head[minhash.near_duplicate_mask(head_signatures, threshold)]
    for start in range(0, len(rest), _COMPARE_BATCH):
        batch = rest[start : start + _COMPARE_BATCH]
        signatures = np.concatenate([head_signatures, _read_signatures(batch, work)])
        yield batch[minhash.near_duplicate_mask(signatures, threshold)[len(head) :]]


def _read_signatures(entries: np.ndarray, work: str) -> np.ndarray:
    """Returns the signatures of BAND_DTYPE[n], uint32[n, PERMUTATIONS]."""
    data = [
        files.read_range(_signatures_path(work, number), at * _SIGNATURE_BYTES, _SIGNATURE_BYTES)
        for number, at in zip(entries["input"].tolist(), entries["at"].tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(data), _SIGNATURE_DTYPE).reshape(-1, minhash.PERMUTATIONS)


def _signatures_path(work: str, number: int) -> str:
    return files.join(work, f"signatures-{number:05d}")


def _bands_prefix(work: str, number: int) -> str:
    return files.join(work, f"bands-{number:05d}")
