"""Near-duplicate detection with MinHash signatures and locality-sensitive hashing by bands.

Two documents are near-duplicates if the Jaccard similarity of their sets of five-word shingles reaches the threshold.
Signatures of PERMUTATIONS values estimate it (standard error 0.035 at 0.8). A document is dropped if an earlier one in
the order of the inputs is a near-duplicate, whether that one is kept or not: the result depends on pairs only, not on
the grouping or the number of processes. A pair is compared if its signatures agree in all rows of a band.
`rows_per_band` chooses the bands so that a pair at the threshold is compared with probability MIN_RECALL or more.

The package datasketch (extra `dedup`) computes the signatures; only this module imports it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from electramed_jax.common.errors import UserError

PERMUTATIONS = 128
SHINGLE_WORDS = 5
MIN_RECALL = 0.95
MAX_COMPARED = 256  # earliest documents of a band that the later ones are compared with

BAND_DTYPE = np.dtype([("hash", "<u8"), ("input", "<i4"), ("row", "<i4"), ("at", "<i8")])  # at: index of the signature

_WORD = re.compile(r"\w+")
_FACTOR = np.uint32(0x01000193)  # odd: the order of the words changes the hash
_SEED = 1


def check_threshold(threshold: float) -> None:
    """Checks the threshold and that datasketch is installed.

    Raises:
      UserError: a threshold outside [0.5, 1], or datasketch is missing.
    """
    if not 0.5 <= threshold <= 1:
        raise UserError(f"near_duplicates={threshold}: wanted a similarity from 0.5 to 1; 0.8 is usual")
    try:
        import datasketch  # noqa: F401
    except ImportError as error:
        raise UserError("--near_duplicates needs datasketch; install electramed_jax[dedup]") from error


def rows_per_band(threshold: float) -> int:
    """Returns the longest band, hence the fewest compared pairs, with recall MIN_RECALL at the threshold."""
    lengths = [
        rows for rows in range(1, PERMUTATIONS + 1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= MIN_RECALL
    ]
    return max(lengths)


def compute_signatures(texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Yields the signature of each text, uint32[PERMUTATIONS]."""
    from datasketch import MinHash  # slow import, needed for this option only

    shingles = map(_shingles, texts)
    hashes = MinHash.generator(shingles, num_perm=PERMUTATIONS, seed=_SEED, hashfunc=int, scheme="affine32")
    return (minhash.hashvalues for minhash in hashes)


def band_hashes(signatures: np.ndarray, rows: int) -> np.ndarray:
    """Returns uint64[n, bands], a hash of each band of the signatures uint32[n, PERMUTATIONS]."""
    bands = PERMUTATIONS // rows
    values = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    hashes = np.zeros(values.shape[:2], np.uint64)
    for row in range(rows):  # one step of MurmurHash3's 64-bit finalizer per value
        hashes = (hashes ^ values[:, :, row]) * np.uint64(0xFF51AFD7ED558CCD)
        hashes ^= hashes >> np.uint64(33)
    return hashes


def group_by_hash(entries: np.ndarray) -> Iterator[np.ndarray]:
    """Yields BAND_DTYPE[m] for each hash that several of BAND_DTYPE[n] share, in the order of the inputs."""
    entries = entries[np.lexsort((entries["row"], entries["input"], entries["hash"]))]
    starts = np.flatnonzero(np.append(True, entries["hash"][1:] != entries["hash"][:-1]))
    ends = np.append(starts[1:], len(entries))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield entries[start:end]


def near_duplicate_mask(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """Returns bool[m]: whether each of the signatures uint32[m, PERMUTATIONS] is a near-duplicate of an earlier one.

    Only the first MAX_COMPARED are compared with later ones: larger groups are copies of a form letter, for which any
    of the first ones suffice.
    """
    is_duplicate = np.zeros(len(signatures), bool)
    for first in range(min(MAX_COMPARED, len(signatures) - 1)):
        later = np.flatnonzero(~is_duplicate[first + 1 :]) + first + 1
        similarity = (signatures[later] == signatures[first]).mean(axis=1)
        is_duplicate[later[similarity >= threshold]] = True
    return is_duplicate


def _shingles(text: str) -> list[int]:
    """Returns the hashes of all runs of SHINGLE_WORDS words; of all words together if there are fewer."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.casefold())], np.uint32)
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    hashes = np.zeros(count, np.uint32)
    for offset in range(min(SHINGLE_WORDS, len(words))):
        hashes = hashes * _FACTOR ^ words[offset : offset + count]
    return hashes.tolist()
