"""Counts the distinct words of documents in bounded memory, in any number of processes, with the same result.

A process counts one part after the other. When it has `MAX_WORDS_IN_MEMORY` distinct words, it writes them to a file,
sorted into slots by a hash. Then a process adds up one slot of all files after the other. No process has all words.

Memory: 0.3 KB for each word of a file that is being counted, so 75 MB at most, and then 150 bytes for each word of a
slot, which has a `NUM_SLOTS`-th of all distinct words.
"""

from __future__ import annotations

import os
import string
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.parallel.process_pool import ProcessPool
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.word_cache import slice_bounds

NUM_SLOTS = 256
MAX_WORDS_IN_MEMORY = 1 << 18
_MARKS = string.punctuation.encode()
_SPACES = b"\t\n\r"
_NOT_SPACES = b"\x0b\x0c"  # control characters for BERT, which removes them; white space for bytes.split
_BATCH_BYTES = 1 << 16
_MAX_WORD_BYTES = 4 * vocab.MAX_WORD_CHARACTERS

Letters = tuple[np.ndarray, np.ndarray]  # code points and the count of each
SlotCounts = tuple[np.ndarray, np.ndarray, Letters]  # distinct counts, number of words with each; letters


class WordCounts:
    """Words of a corpus by BERT's rules, and how often each occurs: the files that `count_documents` wrote.

    Words of more than MAX_WORD_CHARACTERS, such as a sequence of a genome, are left out: the tokenizer maps them to
    [UNK], and the time to train a vocabulary grows with the length of the longest word.

    Attributes:
      lower_case, keep_accents: normalization of the words.
      letters: characters of the words -> how often each occurs.
      distinct: number of distinct words.
    """

    def __init__(self, paths: Sequence[str], slots: Sequence[SlotCounts], lower_case: bool, keep_accents: bool):
        self.lower_case, self.keep_accents = lower_case, keep_accents
        self.letters: Counter[str] = Counter()
        self._paths = paths
        self._histogram: Counter[int] = Counter()  # count -> number of words with it
        for counts, num_words, (points, times) in slots:
            self._histogram.update(dict(zip(counts.tolist(), num_words.tolist(), strict=True)))
            self.letters.update(dict(zip(map(chr, points.tolist()), times.tolist(), strict=True)))
        self.distinct = self._histogram.total()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yields each distinct word and its count, the words of a slot by count, the most frequent first."""
        for path in self._paths:
            with open(path, "rb") as file:
                yield from map(_read_line, file)

    def most_frequent(self, max_words: int) -> Iterator[tuple[str, int]]:
        """Yields all words and counts, or those above the smallest count that at most `max_words` words reach."""
        minimum = self._minimum_count(max_words)
        for path in self._paths:
            with open(path, "rb") as file:
                for line in file:
                    word, count = _read_line(line)
                    if count < minimum:
                        break
                    yield word, count

    def occurrences(self, max_words: int) -> int:
        """Returns the sum of the counts of `most_frequent(max_words)`."""
        minimum = self._minimum_count(max_words)
        return sum(count * words for count, words in self._histogram.items() if count >= minimum)

    def _minimum_count(self, max_words: int) -> int:
        words, minimum = 0, 1 + max(self._histogram, default=0)
        for count in sorted(self._histogram, reverse=True):
            words += self._histogram[count]
            if words > max_words:
                break
            minimum = count
        return minimum


def count_documents(
    documents_dir: str, folder: str, *, lower_case: bool, keep_accents: bool, workers: int | None = None
) -> WordCounts:
    """Counts the words of the training split of a documents folder.

    Args:
      folder: local scratch folder, which the result reads from.
      workers: processes (default: one per core).
    """
    parts = len(corpus_dir.read_documents_info(documents_dir)["inputs"])
    with ProcessPool(1 if parts == 1 else workers) as pool:  # starting processes takes longer than adding up one part
        tasks = [
            (corpus_dir.part_path(documents_dir, "train", number), _prefix(folder, number), lower_case, keep_accents)
            for number in range(parts)
        ]
        counted = list(
            pool.run(_count_part, tasks, "counting words", inside="documents", count=lambda result: result[1])
        )
        return _add_up(pool, folder, [path for paths, _ in counted for path in paths], lower_case, keep_accents)


def count_texts(texts: Iterable[str], folder: str, *, lower_case: bool, keep_accents: bool = False) -> WordCounts:
    """Counts the words of texts in this process; arguments as in `count_documents`."""
    counter = _Counter(_prefix(folder, 0), lower_case, keep_accents)
    counter.add(texts)
    return _add_up(ProcessPool(1), folder, counter.close(), lower_case, keep_accents)


def _count_part(part: str, prefix: str, lower_case: bool, keep_accents: bool) -> tuple[list[str], int]:
    """Counts one part; returns the paths of its files of words and its number of documents."""
    counter = _Counter(prefix, lower_case, keep_accents)
    num_documents = counter.add(document.text for document in corpus_dir.read_part(part))
    return counter.close(), num_documents


def _add_up(pool: ProcessPool, folder: str, paths: Sequence[str], lower_case: bool, keep_accents: bool) -> WordCounts:
    totals = [os.path.join(folder, f"total-{slot:03d}") for slot in range(NUM_SLOTS)]
    tasks = [(tuple(paths), slot, totals[slot]) for slot in range(NUM_SLOTS)]
    slots = list(pool.run(_add_up_slot, tasks, "adding up words", unit="groups"))
    return WordCounts(totals, slots, lower_case, keep_accents)


class _Counter:
    """Counts the words of texts; writes them to `prefix`-000 and so on, a file at a time.

    BERT's rules split a text at all white space and around every ASCII punctuation mark, and the words between two
    splits do not depend on the text around them (see `word_cache`). So raw words are counted first, in the order of
    their bytes; each distinct one is normalized once.
    """

    def __init__(self, prefix: str, lower_case: bool, keep_accents: bool):
        from tokenizers import pre_tokenizers

        self._normalizer = vocab.normalizer(lower_case, keep_accents)
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        capitals = string.ascii_uppercase.encode() if lower_case else b""
        spaces = _MARKS + _SPACES
        self._byte_map = bytes.maketrans(spaces + capitals, b" " * len(spaces) + capitals.lower())
        self._prefix, self._paths = prefix, list[str]()
        self._clear()

    def add(self, texts: Iterable[str]) -> int:
        """Counts the words of the texts; returns the number of texts."""
        batch, size, num_texts = [], 0, 0
        for text in texts:
            num_texts += 1
            batch.append(text.encode())
            size += len(batch[-1])
            if size >= _BATCH_BYTES:
                self._add(b" ".join(batch))
                batch, size = [], 0
        self._add(b" ".join(batch))
        return num_texts

    def close(self) -> list[str]:
        """Writes the last file; returns the paths of all."""
        self._write()
        return self._paths

    def _add(self, data: bytes) -> None:
        self._bytes += np.bincount(np.frombuffer(data, np.uint8), minlength=256)
        data = data.translate(self._byte_map, _NOT_SPACES)
        for start, stop in slice_bounds(data):
            words = data[start:stop].split()
            if long := [word for word in words if len(word) > _MAX_WORD_BYTES]:
                words = [word for word in words if len(word) <= _MAX_WORD_BYTES]
                for word in long:
                    self._words.update(self._pieces(word))
            self._raw.update(words)
            if len(self._raw) + len(self._words) >= MAX_WORDS_IN_MEMORY:
                self._write()

    def _pieces(self, word: bytes) -> list[bytes]:
        """Returns the words of a raw word by BERT's rules, without those that are too long."""
        normalized = self._normalizer.normalize_str(word.decode())
        pieces = [piece for piece, _ in self._pre_tokenizer.pre_tokenize_str(normalized)]
        return [piece.encode() for piece in pieces if len(piece) <= vocab.MAX_WORD_CHARACTERS]

    def _write(self) -> None:
        words = self._words
        for word, count in self._raw.items():
            if word.isalnum():  # ASCII letters and digits, which the map of bytes has lower-cased
                if len(word) <= vocab.MAX_WORD_CHARACTERS:
                    words[word] += count
            else:
                for piece in self._pieces(word):
                    words[piece] += count
        for mark in _MARKS:
            words[bytes([mark])] += int(self._bytes[mark])
        lines: list[list[bytes]] = [[] for _ in range(NUM_SLOTS)]
        for word, count in words.items():
            if count:
                lines[zlib.crc32(word) % NUM_SLOTS].append(b"%s %d\n" % (word, count))
        self._paths.append(f"{self._prefix}-{len(self._paths):03d}")
        _write_slots(self._paths[-1], [b"".join(of_slot) for of_slot in lines])
        self._clear()

    def _clear(self) -> None:
        self._raw: Counter[bytes] = Counter()
        self._words: Counter[bytes] = Counter()  # pieces of very long raw words, such as Chinese sentences
        self._bytes = np.zeros(256, np.int64)


def _add_up_slot(paths: Sequence[str], slot: int, output: str) -> SlotCounts:
    """Adds up one slot of all files and writes its words by count, the most frequent first."""
    totals: dict[bytes, int] = {}
    for path in paths:
        for line in _read_slot(path, slot).splitlines():
            word, _, count = line.rpartition(b" ")
            totals[word] = totals.get(word, 0) + int(count)
    ranked = sorted(totals, key=totals.__getitem__, reverse=True)
    with open(output, "wb") as file:
        file.writelines(b"%s %d\n" % (word, totals[word]) for word in ranked)
    counts = np.fromiter(map(totals.__getitem__, ranked), np.int64, len(ranked))
    return *np.unique(counts, return_counts=True), _count_letters(ranked, counts)


def _count_letters(words: Sequence[bytes], counts: np.ndarray) -> Letters:
    decoded = [word.decode() for word in words]
    points = np.frombuffer("".join(decoded).encode("utf-32-le"), np.uint32)
    unique, index = np.unique(points, return_inverse=True)
    times = np.repeat(counts, np.fromiter(map(len, decoded), np.int64, len(decoded)))
    totals = np.zeros(len(unique), np.int64)
    np.add.at(totals, index, times)
    return unique, totals


def _prefix(folder: str, number: int) -> str:
    return os.path.join(folder, f"words-{number:05d}")


def _read_line(line: bytes) -> tuple[str, int]:
    word, _, count = line.rpartition(b" ")
    return word.decode(), int(count)


def _write_slots(path: str, slots: Sequence[bytes]) -> None:
    bounds = np.cumsum([0, *map(len, slots)], dtype="<i8")
    with open(path, "wb") as file:
        file.write(bounds.tobytes())
        file.writelines(slots)


def _read_slot(path: str, slot: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(8 * slot)
        first, end = np.frombuffer(file.read(16), "<i8").tolist()
        file.seek(8 * (NUM_SLOTS + 1) + first)
        return file.read(end - first)
