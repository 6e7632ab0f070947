"""The stages of `build_documents` that find near-duplicates, between those of equal texts and writing.

  sign      `near_duplicates.signatures` of what is left of one input -> a file of them, and their bands
  resemble  `near_duplicates.resembling` in each group of equal bands -> losses

Signatures stay on disk, 512 bytes a document; a process reads those of one group of equal bands.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir, dedup, minhash, stages
from electramed_jax.data.corpus.filtering import remaining
from electramed_jax.data.corpus.stages import DroppedRows
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.parallel.process_pool import ProcessPool

_SIGNED_AT_ONCE = 1024
_COMPARED_AT_ONCE = 16_384
_SIGNATURE = np.dtype(np.uint32)
_BYTES = minhash.PERMUTATIONS * _SIGNATURE.itemsize


def find(pool: ProcessPool, losses: DroppedRows, groups: Sequence[tuple[int, int]], threshold: float) -> DroppedRows:
    """The losses and those to near-duplicates; `groups` are of hash slots, as many as memory asks for."""
    rows = minhash.rows_per_band(threshold)
    bands = minhash.PERMUTATIONS // rows
    tasks = [(losses, number, rows) for number in range(losses.inputs)]
    signed = list(pool.run(_sign, tasks, "signing", inside="documents", count=lambda found: found["documents"]))
    entries = [
        shuffle_files.file_path(_bands_prefix(losses.folder, number), file)
        for number, of_input in enumerate(signed)
        for file in range(of_input["files_of_bands"])
    ]
    tasks = [
        (
            entries,
            losses,
            bands * shuffle_files.HASH_SLOTS,
            band * shuffle_files.HASH_SLOTS + first,
            end - first,
            threshold,
        )
        for band in range(bands)
        for first, end in groups
    ]
    return losses.and_of(pool.run(_resemble, tasks, "comparing signatures", unit="groups"))


def _sign(losses: DroppedRows, number: int, rows: int) -> dict[str, int]:
    """Signs what is left of one input; counts it."""
    work = losses.folder
    done = files.join(work, f"signed-{number:05d}.json")
    if files.exists(done):
        return files.read_json(done)
    count = 0
    bands = minhash.PERMUTATIONS // rows
    slots = functools.partial(slots_of_bands, bands=bands)
    with shuffle_files.Writer(_bands_prefix(work, number), slots, bands * shuffle_files.HASH_SLOTS) as writer:
        for entries in sign(work, number, losses.of(number), rows):
            writer.write(entries)
            count += len(entries) // bands
    figures = {"documents": count, "files_of_bands": writer.files}
    files.write_json(done, figures)
    return figures


def sign(work: str, number: int, lost: Mapping[int, int], rows: int) -> Iterator[np.ndarray]:
    """Puts the signatures of what is left of one input into a file, whole after the last of what it yields.

    Args:
      lost: the rows that are not left.
      rows: of a band.

    Yields:
      near_duplicates.BAND[n * bands] of n documents, one after the other.
    """
    count = 0
    with files.atomic_write(_signatures(work, number)) as file:
        for places, texts in _batches(work, number, lost):
            signatures = np.array(list(minhash.signatures(texts)), _SIGNATURE)
            file.write(signatures.tobytes())
            entries = np.empty((len(texts), minhash.PERMUTATIONS // rows), minhash.BAND)
            entries["hash"] = minhash.band_hashes(signatures, rows)
            entries["input"], entries["row"] = number, np.array(places)[:, None]
            entries["at"] = np.arange(count, count + len(texts))[:, None]
            yield entries.ravel()
            count += len(texts)


def slots_of_bands(entries: np.ndarray, bands: int) -> np.ndarray:
    """int64[n]: which of bands * shuffle.HASH_SLOTS each of what `sign` yields falls into; equal bands, into one."""
    return np.arange(len(entries)) % bands * shuffle_files.HASH_SLOTS + shuffle_files.hash_slots(entries["hash"])


def _batches(work: str, number: int, lost: Mapping[int, int]) -> Iterator[tuple[list[int], list[str]]]:
    """(rows, texts) of what is left of one input, some at a time."""
    rows, texts = [], []
    with stages.open_lines(work, number) as lines:
        for row, _, line in remaining(lines, lost):
            rows.append(row)
            texts.append(corpus_dir.from_line(line).text)
            if len(texts) == _SIGNED_AT_ONCE:
                yield rows, texts
                rows, texts = [], []
    if texts:
        yield rows, texts


def _resemble(
    entries: Sequence[str], losses: DroppedRows, number_of_slots: int, first: int, count: int, threshold: float
) -> str:
    """Finds the losses among the documents whose bands fall into some slots; returns the group's name."""
    name = f"near-{first:06d}-{count:03d}"
    if not losses.has(name):
        of_slots = shuffle_files.read(entries, minhash.BAND, number_of_slots, first, first + count)
        losses.write(name, resembling(losses.folder, of_slots, threshold))
    return name


def resembling(work: str, entries: np.ndarray, threshold: float) -> np.ndarray:
    """dedup.LOSS[m] of those of BAND[n] that are near to an earlier one of an equal band, once for each such band."""
    lost = [some for group in minhash.groups(entries) for some in _lost_of(work, group, threshold)]
    return dedup.dropped_rows(np.concatenate([np.empty(0, minhash.BAND), *lost]), dedup.NEAR_DUPLICATE)


def _lost_of(work: str, group: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Those of BAND[m] that are near to an earlier one, some at a time, as the group may be a large one."""
    head, rest = group[: minhash.COMPARED], group[minhash.COMPARED :]
    compared = _read_signatures(head, work)
    yield head[minhash.near_duplicate_mask(compared, threshold)]
    for start in range(0, len(rest), _COMPARED_AT_ONCE):
        some = rest[start : start + _COMPARED_AT_ONCE]
        signatures = np.concatenate([compared, _read_signatures(some, work)])
        yield some[minhash.near_duplicate_mask(signatures, threshold)[len(head) :]]


def _read_signatures(entries: np.ndarray, work: str) -> np.ndarray:
    """uint32[n, PERMUTATIONS] of BAND[n]."""
    data = [
        files.read_range(_signatures(work, number), at * _BYTES, _BYTES)
        for number, at in zip(entries["input"].tolist(), entries["at"].tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(data), _SIGNATURE).reshape(-1, minhash.PERMUTATIONS)


def _signatures(work: str, number: int) -> str:
    return files.join(work, f"signatures-{number:05d}")


def _bands_prefix(work: str, number: int) -> str:
    return files.join(work, f"bands-{number:05d}")
