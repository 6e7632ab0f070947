"""Documents that say nearly what an earlier one says: MinHash signatures, cut into bands.

Two documents are near when the Jaccard similarity of their sets of five-word shingles, estimated by
signatures of PERMUTATIONS values (standard error 0.035 at 0.8), reaches the threshold. A document is dropped
when it is near to one that stands before it in the order of the inputs, whether that one stays or not: so
each document's fate is decided by pairs alone, in any grouping, on any number of processes.
Pairs that are looked at are those that agree in a whole band of their signatures: `rows_per_band`
chooses it so that a pair at the threshold is seen with probability SEEN or more.

datasketch makes the signatures (extra `dedup`); only this module knows of it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from electramed_jax.common.errors import UserError

PERMUTATIONS = 128
SHINGLE_WORDS = 5
SEEN = 0.95
COMPARED = 256  # documents of a band, from the first, that the later ones are compared with

BAND = np.dtype([("hash", "<u8"), ("input", "<i4"), ("row", "<i4"), ("at", "<i8")])  # at: place of the signature

_WORD = re.compile(r"\w+")
_FACTOR = np.uint32(0x01000193)  # odd: words in another order make another shingle
_SEED = 1


def check(threshold: float) -> None:
    """Makes sure that the threshold makes sense and that signatures can be made.

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
    """The longest band, hence the fewest pairs, for which pairs at the threshold are seen with probability SEEN."""
    fitting = [
        rows for rows in range(1, PERMUTATIONS + 1) if 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= SEEN
    ]
    return max(fitting)


def signatures(texts: Iterable[str]) -> Iterator[np.ndarray]:
    """uint32[PERMUTATIONS] of each text."""
    from datasketch import MinHash  # heavy, and needed for this option only

    shingles = map(_shingles, texts)
    made = MinHash.generator(shingles, num_perm=PERMUTATIONS, seed=_SEED, hashfunc=int, scheme="affine32")
    return (minhash.hashvalues for minhash in made)


def band_hashes(signatures: np.ndarray, rows: int) -> np.ndarray:
    """uint64[n, bands]: for each of the signatures [n, PERMUTATIONS] a hash of each of its bands."""
    bands = PERMUTATIONS // rows
    values = signatures[:, : bands * rows].reshape(-1, bands, rows).astype(np.uint64)
    hashes = np.zeros(values.shape[:2], np.uint64)
    for row in range(rows):  # a step of MurmurHash3's 64-bit finalizer for each value
        hashes = (hashes ^ values[:, :, row]) * np.uint64(0xFF51AFD7ED558CCD)
        hashes ^= hashes >> np.uint64(33)
    return hashes


def groups(entries: np.ndarray) -> Iterator[np.ndarray]:
    """BAND[m] of each hash that two or more of BAND[n] have, in the order of the inputs."""
    entries = entries[np.lexsort((entries["row"], entries["input"], entries["hash"]))]
    starts = np.flatnonzero(np.append(True, entries["hash"][1:] != entries["hash"][:-1]))
    ends = np.append(starts[1:], len(entries))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield entries[start:end]


def near_duplicate_mask(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """bool[m]: whether each of the signatures [m, PERMUTATIONS] is near to an earlier one.

    In a group of more than COMPARED, those after them are compared with these only: such a group is
    one of a form letter's, where the first are as good as any.
    """
    again = np.zeros(len(signatures), bool)
    for first in range(min(COMPARED, len(signatures) - 1)):
        later = np.flatnonzero(~again[first + 1 :]) + first + 1
        equal = (signatures[later] == signatures[first]).mean(axis=1)
        again[later[equal >= threshold]] = True
    return again


def _shingles(text: str) -> list[int]:
    """The hashes of a text's runs of SHINGLE_WORDS words; of all its words where there are fewer."""
    words = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.casefold())], np.uint32)
    count = max(1, len(words) - SHINGLE_WORDS + 1)
    hashes = np.zeros(count, np.uint32)
    for place in range(min(SHINGLE_WORDS, len(words))):
        hashes = hashes * _FACTOR ^ words[place : place + count]
    return hashes.tolist()
