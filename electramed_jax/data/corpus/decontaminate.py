"""Documents that share a PMID or a long sentence with an evaluation file, so that no test is trained on.

Sentences are compared as streams of letters a-z and digits: tokenised corpora put spaces around
punctuation, and PubMed has had many spellings of everything else. An evaluation file holds a document
out when the document's title and sections contain

- one whole sentence of the file of at least LONG such characters, or
- at DISJOINT places whole sentences of at least SHORT: one alone may be a common phrase.

Every sentence of at least SHORT characters contains, wherever it stands in a document, a whole window
of WINDOW characters that begins at a multiple of WINDOW. So a document is looked up by such windows
only, in an index of each sentence's first WINDOW windows; what is found is then compared in full.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import eval_texts

LONG, SHORT, DISJOINT = 80, 48, 3
WINDOW = 24  # bytes, three words of eight; 2 * WINDOW - 1 <= SHORT

_SMALL = bytes(range(256)).lower()
_OTHERS = bytes(byte for byte in range(256) if not (byte < 128 and chr(byte).isalnum()))
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)  # odd, of XXH64
_FILTER_BITS = 22


def normalized(text: str) -> bytes:
    """The letters a-z and digits of a text, in small letters; everything else is dropped."""
    return text.encode("utf-8", "replace").translate(_SMALL, _OTHERS)


@dataclasses.dataclass(frozen=True)
class Index:
    """PMIDs and sentences of several evaluation files; `build` makes one.

    Attributes:
      pmids, pmid_files: int64[p] sorted, and the number of the file each is from.
      sentences: uint8[...], normalised, one after the other; bounds: int64[s+1], where each begins and ends.
      sentence_files: int64[s].
      windows: uint64[w] sorted, hashes; window_sentences, window_offsets: int64[w], where each stands.
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
        """(number of the evaluation file, "pmid" or else "sentence") for each file that holds the document out."""
        by_pmid = set()
        if pmid:
            first, end = np.searchsorted(self.pmids, [pmid, pmid + 1])
            by_pmid.update(self.pmid_files[first:end].tolist())
        by_sentence = self._files_of(normalized(text)) - by_pmid
        return [*((file, "pmid") for file in sorted(by_pmid)), *((file, "sentence") for file in sorted(by_sentence))]

    def save(self, path: str) -> None:
        with files.atomic_write(path) as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def counts(self, number_of_files: int) -> list[dict[str, int]]:
        """For each evaluation file how many PMIDs and sentences are sought."""
        pmids = np.bincount(self.pmid_files, minlength=number_of_files).tolist()
        sentences = np.bincount(self.sentence_files, minlength=number_of_files).tolist()
        return [{"pmids": p, "sentences": s} for p, s in zip(pmids, sentences, strict=True)]

    def _files_of(self, text: bytes) -> set[int]:
        found: set[int] = set()
        places: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for sentence, start in self._candidates(text):
            begin, end = self.bounds[sentence : sentence + 2].tolist()
            # A start before the text's (below 0) is counted from its end, where there is less than a sentence.
            if text.startswith(self._sentence_bytes[begin:end], start):
                file = int(self.sentence_files[sentence])
                if end - begin >= LONG:
                    found.add(file)
                else:
                    places[file].add((start + end - begin, start))
        return found | {file for file, spans in places.items() if _disjoint(spans) >= DISJOINT}

    def _candidates(self, text: bytes) -> Iterable[tuple[int, int]]:
        """(sentence, where in the text it would begin)."""
        whole = len(text) // WINDOW
        hashes = _hashes(np.frombuffer(text, "<u8", 3 * whole).reshape(-1, 3))
        likely = np.flatnonzero(self._filter[hashes >> np.uint64(64 - _FILTER_BITS)])
        if not len(likely):
            return
        first = np.searchsorted(self.windows, hashes[likely], "left")
        end = np.searchsorted(self.windows, hashes[likely], "right")
        for window, a, b in zip(likely.tolist(), first.tolist(), end.tolist(), strict=True):
            for sentence, offset in zip(self.window_sentences[a:b].tolist(), self.window_offsets[a:b].tolist()):
                yield sentence, window * WINDOW - offset

    @functools.cached_property
    def _sentence_bytes(self) -> bytes:
        return self.sentences.tobytes()

    @functools.cached_property
    def _filter(self) -> np.ndarray:
        """bool[2**_FILTER_BITS]: whether a window's hash begins with these bits."""
        table = np.zeros(1 << _FILTER_BITS, bool)
        table[self.windows >> np.uint64(64 - _FILTER_BITS)] = True
        return table


def build(contents: Sequence[tuple[set[int], list[str]]]) -> Index:
    """The index of what `evaluation_files.read` gives of each file."""
    pmids = np.array([(p, n) for n, (of_file, _) in enumerate(contents) for p in of_file], np.int64).reshape(-1, 2)
    pmids = pmids[np.argsort(pmids[:, 0], kind="stable")]
    sentences = [(s, n) for n, (_, passages) in enumerate(contents) for s in sorted(set(map(normalized, passages)))]
    sentences = [(sentence, n) for sentence, n in sentences if len(sentence) >= SHORT]
    text = np.frombuffer(b"".join(sentence for sentence, _ in sentences), np.uint8)
    bounds = np.cumsum([0, *(len(sentence) for sentence, _ in sentences)])
    offsets = np.arange(WINDOW)
    at = (bounds[:-1, None] + offsets).ravel()
    windows = _hashes(_windows_at(text, at)) if sentences else np.empty(0, np.uint64)
    order = np.argsort(windows, kind="stable")
    return Index(
        pmids=pmids[:, 0].copy(),
        pmid_files=pmids[:, 1].copy(),
        sentences=text,
        bounds=bounds,
        sentence_files=np.array([n for _, n in sentences], np.int64),
        windows=windows[order],
        window_sentences=np.repeat(np.arange(len(sentences)), WINDOW)[order],
        window_offsets=np.tile(offsets, len(sentences))[order],
    )


def read(paths: Iterable[str]) -> Index:
    """The index of evaluation files."""
    return build([eval_texts.read(path) for path in paths])


@functools.lru_cache(maxsize=1)
def load(path: str) -> Index:
    """A saved index; one is kept per process."""
    with files.open_read(path) as file:
        arrays = np.load(file)
        return Index(**{name: arrays[name] for name in arrays})


def _windows_at(text: np.ndarray, at: np.ndarray) -> np.ndarray:
    """uint64[n, 3]: the windows that begin at bytes `at` [n]."""
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(text, WINDOW)[at]).view("<u8")


def _hashes(windows: np.ndarray) -> np.ndarray:
    """uint64[n] of uint64[n, 3]."""
    return (windows * _FACTORS).sum(axis=1, dtype=np.uint64)


def _disjoint(spans: Iterable[tuple[int, int]]) -> int:
    """The most (end, start) that do not overlap."""
    count, last = 0, 0
    for end, start in sorted(spans):
        if start >= last:
            count, last = count + 1, end
    return count
