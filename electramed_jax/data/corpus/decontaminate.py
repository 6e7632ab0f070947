"""Decontamination: finds documents that share a PMID or a long sentence with an evaluation file.

Sentences are compared as sequences of the letters a-z and digits, because tokenized corpora put spaces around
punctuation and PubMed has several spellings of other characters: a Greek letter equals its name, an accented letter the
plain one, and hyphens, dashes and quotation marks do not count. A document matches an evaluation file if its title
and sections contain

- a complete sentence of the file with at least LONG_CHARS such characters, or
- complete sentences with at least SHORT_CHARS at MIN_SHORT_MATCHES disjoint positions; one may be a common phrase.

A sentence of at least SHORT_CHARS characters contains, at any position in a document, a complete window of WINDOW
characters that starts at a multiple of WINDOW. A document is therefore looked up by these windows only, in an index of
the first WINDOW windows of each sentence. Candidates are then compared in full.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import eval_texts

LONG_CHARS, SHORT_CHARS, MIN_SHORT_MATCHES = 80, 48, 3
WINDOW = 24  # bytes, three words of 8 bytes; 2 * WINDOW - 1 <= SHORT_CHARS

_LOWER = bytes(range(256)).lower()
_REMOVED = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))
_GREEK = (
    *(
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
    ),
    *("omicron", "pi", "rho", "sigma", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)
_SPELLING = dict(zip("αβγδεζηθικλμνξοπρςστυφχψω", _GREEK, strict=True))  # ς is the sigma at the end of a word
_SPELLING |= {letter.upper(): name for letter, name in _SPELLING.items()}
# Latin letters that Unicode does not decompose; ß is mostly written for β.
_SPELLING |= {"ß": "beta", "ø": "o", "Ø": "o", "æ": "ae", "Æ": "ae", "œ": "oe", "Œ": "oe", "ł": "l", "Ł": "l"}
_SPELLED = re.compile(f"[{''.join(_SPELLING)}]")
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # odd, from XXH64
_FILTER_BITS = 22


def normalize(text: str) -> bytes:
    """Returns the letters a-z, in lower case, and the digits of a text; other characters are dropped.

    Greek letters become their names, compatible characters such as "é", "ﬁ" and "²" the plain ones.
    """
    if not text.isascii():
        text = _SPELLED.sub(lambda letter: _SPELLING[letter[0]], unicodedata.normalize("NFKD", text))
    return text.encode("utf-8", "replace").translate(_LOWER, _REMOVED)


@dataclasses.dataclass(frozen=True)
class EvaluationIndex:
    """PMIDs and sentences of several evaluation files, for lookup; see `build_index`.

    Attributes:
      pmids: int64[p], sorted.
      pmid_files: int64[p], number of the evaluation file of each PMID.
      sentences: uint8[...], the normalized sentences, concatenated.
      bounds: int64[s+1], start and end of each sentence.
      sentence_files: int64[s], number of the evaluation file of each sentence.
      windows: uint64[w], sorted hashes of windows.
      window_sentences: int64[w], sentence of each window.
      window_offsets: int64[w], offset of each window in its sentence.
    """

    pmids: np.ndarray
    pmid_files: np.ndarray
    sentences: np.ndarray
    bounds: np.ndarray
    sentence_files: np.ndarray
    windows: np.ndarray
    window_sentences: np.ndarray
    window_offsets: np.ndarray

    def matches(self, pmid: int | None, text: str) -> list[tuple[int, str]]:
        """Returns (number, "pmid" or else "sentence") of each evaluation file that matches a document."""
        by_pmid = set()
        if pmid:
            first, end = np.searchsorted(self.pmids, [pmid, pmid + 1])
            by_pmid.update(self.pmid_files[first:end].tolist())
        by_sentence = self._sentence_matches(normalize(text)) - by_pmid
        return [*((file, "pmid") for file in sorted(by_pmid)), *((file, "sentence") for file in sorted(by_sentence))]

    def save(self, path: str) -> None:
        """Writes the index to an .npz file for `load_index`."""
        with files.atomic_write(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def count_by_file(self, num_files: int) -> list[dict[str, int]]:
        """Returns the number of indexed PMIDs and sentences of each evaluation file."""
        pmids = np.bincount(self.pmid_files, minlength=num_files).tolist()
        sentences = np.bincount(self.sentence_files, minlength=num_files).tolist()
        return [{"pmids": p, "sentences": s} for p, s in zip(pmids, sentences, strict=True)]

    def _sentence_matches(self, text: bytes) -> set[int]:
        matched: set[int] = set()
        short_spans: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for sentence, start in self._candidates(text):
            begin, end = self.bounds[sentence : sentence + 2].tolist()
            # A negative start counts from the end of the text, where less than a sentence is left: no match.
            if text.startswith(self._sentence_bytes[begin:end], start):
                file = int(self.sentence_files[sentence])
                if end - begin >= LONG_CHARS:
                    matched.add(file)
                else:
                    short_spans[file].add((start + end - begin, start))
        return matched | {file for file, spans in short_spans.items() if _max_disjoint(spans) >= MIN_SHORT_MATCHES}

    def _candidates(self, text: bytes) -> Iterable[tuple[int, int]]:
        """Yields (sentence, start in the text) for each indexed window that the text contains."""
        num_windows = len(text) // WINDOW
        hashes = _hashes(np.frombuffer(text, "<u8", 3 * num_windows).reshape(-1, 3))
        likely = np.flatnonzero(self._filter[hashes >> np.uint64(64 - _FILTER_BITS)])
        if not len(likely):
            return
        first = np.searchsorted(self.windows, hashes[likely], "left")
        end = np.searchsorted(self.windows, hashes[likely], "right")
        for window, a, b in zip(likely.tolist(), first.tolist(), end.tolist(), strict=True):
            for sentence, offset in zip(
                self.window_sentences[a:b].tolist(), self.window_offsets[a:b].tolist(), strict=True
            ):
                yield sentence, window * WINDOW - offset

    @functools.cached_property
    def _sentence_bytes(self) -> bytes:
        return self.sentences.tobytes()

    @functools.cached_property
    def _filter(self) -> np.ndarray:
        """Returns bool[2**_FILTER_BITS]: whether the hash of an indexed window starts with these bits."""
        table = np.zeros(1 << _FILTER_BITS, bool)
        table[self.windows >> np.uint64(64 - _FILTER_BITS)] = True
        return table


def build_index(contents: Sequence[tuple[set[int], list[str]]]) -> EvaluationIndex:
    """Builds the index from (PMIDs, passages) of each evaluation file."""
    pmids = np.array([(p, n) for n, (file_pmids, _) in enumerate(contents) for p in file_pmids], np.int64).reshape(
        -1, 2
    )
    pmids = pmids[np.argsort(pmids[:, 0], kind="stable")]
    sentences = [(s, n) for n, (_, passages) in enumerate(contents) for s in sorted(set(map(normalize, passages)))]
    sentences = [(sentence, n) for sentence, n in sentences if len(sentence) >= SHORT_CHARS]
    text = np.frombuffer(b"".join(sentence for sentence, _ in sentences), np.uint8)
    bounds = np.cumsum([0, *(len(sentence) for sentence, _ in sentences)])
    offsets = np.arange(WINDOW)
    starts = (bounds[:-1, None] + offsets).ravel()
    windows = _hashes(_windows_at(text, starts)) if sentences else np.empty(0, np.uint64)
    order = np.argsort(windows, kind="stable")
    return EvaluationIndex(
        pmids=pmids[:, 0].copy(),
        pmid_files=pmids[:, 1].copy(),
        sentences=text,
        bounds=bounds,
        sentence_files=np.array([n for _, n in sentences], np.int64),
        windows=windows[order],
        window_sentences=np.repeat(np.arange(len(sentences)), WINDOW)[order],
        window_offsets=np.tile(offsets, len(sentences))[order],
    )


def read_index(paths: Iterable[str]) -> EvaluationIndex:
    """Builds the index of evaluation files."""
    return build_index([eval_texts.read_passages(path) for path in paths])


@functools.lru_cache(maxsize=1)
def load_index(path: str) -> EvaluationIndex:
    """Loads a saved index; the last one is cached in each process."""
    with files.open_read(path) as file:
        arrays = np.load(file)
        return EvaluationIndex(**{name: arrays[name] for name in arrays})


def _windows_at(text: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns uint64[n, 3], the windows that start at bytes int64[n]."""
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(text, WINDOW)[starts]).view("<u8")


def _hashes(windows: np.ndarray) -> np.ndarray:
    """Returns uint64[n], a hash of each window uint64[n, 3]."""
    return (windows * _FACTORS).sum(axis=1, dtype=np.uint64)


def _max_disjoint(spans: Iterable[tuple[int, int]]) -> int:
    """Returns the largest number of (end, start) spans that do not overlap."""
    count, last = 0, 0
    for end, start in sorted(spans):
        if start >= last:
            count, last = count + 1, end
    return count
