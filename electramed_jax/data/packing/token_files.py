"""Documents to token ids, and these on disk: what the processes hand to the packing, in blocks.

A file is a sequence of blocks, each the arrays of `Tokens` in order as numpy writes them (.npy), so
that neither side holds more than a block, however large the part it came from.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.dataset.manifest import dtype_for
from electramed_jax.data.packing.pack import SentenceEnds
from electramed_jax.data.readers.document import Document
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

BLOCK_TOKENS = 1 << 20  # a block ends with the batch of documents that reaches it
_TEXTS_AT_ONCE = 256


class Tokens(NamedTuple):
    """Documents one after the other.

    Attributes:
      ids: uint16 or uint32[sum(lengths)], without special tokens.
      lengths: int64[D], tokens of each document.
      draws: uint64[D], a random number of each document's own, made from its id.
      sentences: int64[S], tokens of each sentence, each at least 1; empty where nobody asked for sentences.
      sentence_counts: int64[D], sentences of each document.
    """

    ids: np.ndarray
    lengths: np.ndarray
    draws: np.ndarray
    sentences: np.ndarray
    sentence_counts: np.ndarray

    def part(self, start: int, stop: int) -> Tokens:
        """Documents start to stop."""
        return Tokens(
            self.ids[self.lengths[:start].sum() : self.lengths[:stop].sum()],
            self.lengths[start:stop],
            self.draws[start:stop],
            self.sentences[self.sentence_counts[:start].sum() : self.sentence_counts[:stop].sum()],
            self.sentence_counts[start:stop],
        )

    def without_wordless(self) -> Tokens:
        """Less the documents that have no token."""
        some = self.lengths > 0
        return self._replace(
            lengths=self.lengths[some], draws=self.draws[some], sentence_counts=self.sentence_counts[some]
        )


def tokenize(
    documents: Iterable[Document], tokenizer: Tokenizer, sentence_ends: SentenceEnds | None = None
) -> Iterator[Tokens]:
    """Tokenises documents, some hundred at a time.

    Args:
      sentence_ends: given where sentences are wanted; they end as these say, and at the end of a line
        (the title and each section are lines).
    """
    documents = iter(documents)
    dtype = dtype_for(len(tokenizer.tokens))
    while batch := list(itertools.islice(documents, _TEXTS_AT_ONCE)):
        lines = [document.text.split("\n") if sentence_ends else [document.text] for document in batch]
        encoded = iter(tokenizer.encode_batch(list(itertools.chain.from_iterable(lines))))
        of_document = [list(itertools.islice(encoded, len(texts))) for texts in lines]
        sentences = [_sentences(ids, sentence_ends) if sentence_ends else () for ids in of_document]
        yield Tokens(
            np.concatenate(list(itertools.chain.from_iterable(of_document)), dtype=dtype, casting="unsafe"),
            np.array([sum(map(len, ids)) for ids in of_document], np.int64),
            np.array([corpus_dir.stable_hash(f"pair:{document.id}") for document in batch], np.uint64),
            np.array(list(itertools.chain.from_iterable(sentences)), np.int64),
            np.array([len(sizes) for sizes in sentences], np.int64),
        )


def _sentences(lines: list[np.ndarray], sentence_ends: SentenceEnds) -> list[int]:
    """Tokens of each sentence of a document's lines."""
    sizes: list[int] = []
    for ids in lines:
        if len(ids):
            sizes += np.diff(sentence_ends.breaks(ids), prepend=0, append=len(ids)).tolist()
    return sizes


def join(pieces: Iterable[Tokens]) -> Tokens:
    """The documents of all pieces, of which there is at least one."""
    return Tokens(*(np.concatenate(arrays) for arrays in zip(*pieces, strict=True)))


class Block(NamedTuple):
    """A block of a file: the byte at which it begins, and `Tokens.lengths` of its documents."""

    offset: int
    lengths: np.ndarray


def write(path: str, pieces: Iterable[Tokens]) -> list[Block]:
    """Writes a file, atomically; small pieces are joined to blocks."""
    blocks: list[Block] = []
    with files.atomic_write(path) as file:
        waiting: list[Tokens] = []
        for piece in pieces:
            waiting.append(piece)
            if sum(len(tokens.ids) for tokens in waiting) >= BLOCK_TOKENS:
                blocks.append(_write_block(file, waiting))
                waiting = []
        if waiting:
            blocks.append(_write_block(file, waiting))
    return blocks


def read(path: str) -> Iterator[Tokens]:
    """The blocks of a file."""
    with files.open_read(path) as file:
        while (block := _read_block(file)) is not None:
            yield block


def read_block(path: str, offset: int) -> Tokens:
    """The block that begins at a byte of a file."""
    with files.open_read(path) as file:
        file.seek(offset)
        return _read_block(file)


def windows(blocks: Iterable[Tokens], tokens_at_once: int) -> Iterator[Tokens]:
    """As many whole documents as reach `tokens_at_once`, at most; where blocks end makes no difference.

    Every document must have a token.
    """
    held: dict[int, Tokens] = {}

    def lengths() -> Iterator[np.ndarray]:
        for number, block in enumerate(blocks):
            held[number] = block
            yield block.lengths

    for spans in window_spans(lengths(), tokens_at_once):
        yield join([held[number].part(start, stop) for number, start, stop in spans])
        for number in [number for number in held if number < spans[-1][0]]:
            del held[number]


def window_spans(lengths: Iterable[np.ndarray], tokens_at_once: int) -> Iterator[list[tuple[int, int, int]]]:
    """For each of the `windows` of blocks of such `lengths`, where it lies: (number of the block, start, stop)."""
    spans: list[tuple[int, int, int]] = []
    size = 0
    for number, of_block in enumerate(lengths):
        ends = np.cumsum(of_block)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = min(int(np.searchsorted(ends, before + tokens_at_once - size)) + 1, len(ends))
            spans.append((number, start, stop))
            size += int(ends[stop - 1]) - before
            start = stop
            if size >= tokens_at_once:
                yield spans
                spans, size = [], 0
    if spans:
        yield spans


def _write_block(file: BinaryIO, pieces: list[Tokens]) -> Block:
    tokens = join(pieces)
    block = Block(file.tell(), tokens.lengths)
    data = io.BytesIO()  # numpy, given a file of the system's, does not say why it cannot write to it
    for array in tokens:
        np.save(data, array)
    file.write(data.getbuffer())
    return block


def _read_block(file: BinaryIO) -> Tokens | None:
    """The block that begins here; None at the end of the file."""
    try:
        ids = np.load(file)
    except EOFError:  # numpy's word for a file that ends before an array begins
        return None
    return Tokens(ids, *(np.load(file) for _ in Tokens._fields[1:]))
