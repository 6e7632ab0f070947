"""Tokenizes documents and stores the token ids in scratch files, which the packing reads block by block.

A file is a sequence of blocks. A block is the arrays of `Tokens` in order, each in numpy's .npy format, so
that writer and reader hold one block in memory, whatever the size of the part.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.dataset.manifest import dtype_for
from electramed_jax.data.packing.pack import SentenceEnds
from electramed_jax.data.readers.document import Document
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

BLOCK_TOKENS = 1 << 20  # a block ends with the batch of documents that reaches it
_BATCH_DOCUMENTS = 256


class Tokens(NamedTuple):
    """Token ids of documents, one document after the other.

    Attributes:
      ids: uint16 or uint32[sum(lengths)], without special tokens.
      lengths: int64[D], tokens of each document.
      random_bits: uint64[D], a hash of each document's id.
      sentence_lengths: int64[S], tokens of each sentence, each at least 1; empty where sentences were not requested.
      sentence_counts: int64[D], sentences of each document.
    """

    ids: np.ndarray
    lengths: np.ndarray
    random_bits: np.ndarray
    sentence_lengths: np.ndarray
    sentence_counts: np.ndarray

    def slice(self, start: int, stop: int) -> Tokens:
        """Returns the documents start .. stop-1."""
        return Tokens(
            self.ids[self.lengths[:start].sum() : self.lengths[:stop].sum()],
            self.lengths[start:stop],
            self.random_bits[start:stop],
            self.sentence_lengths[self.sentence_counts[:start].sum() : self.sentence_counts[:stop].sum()],
            self.sentence_counts[start:stop],
        )

    def drop_empty(self) -> Tokens:
        """Returns the documents that have at least one token."""
        kept = self.lengths > 0
        return self._replace(
            lengths=self.lengths[kept], random_bits=self.random_bits[kept], sentence_counts=self.sentence_counts[kept]
        )


def tokenize(
    documents: Iterable[Document], tokenizer: Tokenizer, sentence_ends: SentenceEnds | None = None
) -> Iterator[Tokens]:
    """Yields the tokens of documents in batches of `_BATCH_DOCUMENTS`.

    Args:
      sentence_ends: finds the sentences of each document; a sentence also ends at the end of a line
        (the title and each section are lines). None: the sentence arrays are empty.
    """
    documents = iter(documents)
    dtype = dtype_for(len(tokenizer.tokens))
    while batch := list(itertools.islice(documents, _BATCH_DOCUMENTS)):
        lines = [document.text.split("\n") if sentence_ends else [document.text] for document in batch]
        encoded = iter(tokenizer.encode_batch(list(itertools.chain.from_iterable(lines))))
        ids_by_document = [list(itertools.islice(encoded, len(texts))) for texts in lines]
        sentences = [_sentence_lengths(ids, sentence_ends) if sentence_ends else [] for ids in ids_by_document]
        yield Tokens(
            np.concatenate(list(itertools.chain.from_iterable(ids_by_document)), dtype=dtype, casting="unsafe"),
            np.array([sum(map(len, ids)) for ids in ids_by_document], np.int64),
            np.array([corpus_dir.stable_hash(f"pair:{document.id}") for document in batch], np.uint64),
            np.array(list(itertools.chain.from_iterable(sentences)), np.int64),
            np.array([len(sizes) for sizes in sentences], np.int64),
        )


def _sentence_lengths(lines: list[np.ndarray], sentence_ends: SentenceEnds) -> list[int]:
    sizes: list[int] = []
    for ids in lines:
        if len(ids):
            sizes += np.diff(sentence_ends.breaks(ids), prepend=0, append=len(ids)).tolist()
    return sizes


def concatenate(batches: Iterable[Tokens]) -> Tokens:
    """Returns the documents of all batches; there is at least one batch."""
    return Tokens(*(np.concatenate(arrays) for arrays in zip(*batches, strict=True)))


class Block(NamedTuple):
    """Position of a block in its file.

    Attributes:
      offset: its first byte.
      lengths: `Tokens.lengths` of its documents.
    """

    offset: int
    lengths: np.ndarray


def write_blocks(path: str, batches: Iterable[Tokens]) -> list[Block]:
    """Writes a file atomically, small batches joined to blocks; returns the blocks."""
    blocks: list[Block] = []
    with files.atomic_write(path) as file:
        pending: list[Tokens] = []
        for batch in batches:
            pending.append(batch)
            if sum(len(tokens.ids) for tokens in pending) >= BLOCK_TOKENS:
                blocks.append(_write_block(file, pending))
                pending = []
        if pending:
            blocks.append(_write_block(file, pending))
    return blocks


def read_blocks(path: str) -> Iterator[Tokens]:
    """Yields the blocks of a file.

    Raises:
      UserError: the file is cut short.
    """
    with files.open_read(path) as file:
        while (block := _read_block(file, path)) is not None:
            yield block


def read_block(path: str, offset: int) -> Tokens:
    """Reads the block that begins at byte `offset` of a file.

    Raises:
      UserError: the file is cut short.
    """
    with files.open_read(path) as file:
        file.seek(offset)
        block = _read_block(file, path)
    if block is None:
        raise _cut_short(path, offset)
    return block


def windows(blocks: Iterable[Tokens], window_tokens: int) -> Iterator[Tokens]:
    """Yields windows: the fewest whole documents that reach `window_tokens`. Block boundaries make no difference.

    Every document must have a token.
    """
    open_blocks: dict[int, Tokens] = {}

    def lengths() -> Iterator[np.ndarray]:
        for number, block in enumerate(blocks):
            open_blocks[number] = block
            yield block.lengths

    for spans in window_spans(lengths(), window_tokens):
        yield concatenate([open_blocks[number].slice(start, stop) for number, start, stop in spans])
        for number in [number for number in open_blocks if number < spans[-1][0]]:
            del open_blocks[number]


def window_spans(lengths: Iterable[np.ndarray], window_tokens: int) -> Iterator[list[tuple[int, int, int]]]:
    """Yields the spans of each window (see `windows`): (number of the block, start, stop of its documents).

    Args:
      lengths: of the documents, one array for each block.
    """
    spans: list[tuple[int, int, int]] = []
    size = 0
    for number, block_lengths in enumerate(lengths):
        ends = np.cumsum(block_lengths)
        start = 0
        while start < len(ends):
            before = int(ends[start - 1]) if start else 0
            stop = min(int(np.searchsorted(ends, before + window_tokens - size)) + 1, len(ends))
            spans.append((number, start, stop))
            size += int(ends[stop - 1]) - before
            start = stop
            if size >= window_tokens:
                yield spans
                spans, size = [], 0
    if spans:
        yield spans


def _write_block(file: BinaryIO, batches: list[Tokens]) -> Block:
    tokens = concatenate(batches)
    block = Block(file.tell(), tokens.lengths)
    data = io.BytesIO()  # np.save to a file of the operating system hides why a write failed
    for array in tokens:
        np.save(data, array)
    file.write(data.getbuffer())
    return block


def _read_block(file: BinaryIO, path: str) -> Tokens | None:
    """Reads the block at the current position; None at the end of the file."""
    offset = file.tell()
    try:
        try:
            ids = np.load(file)
        except EOFError:  # the file ends where an array would begin
            return None
        return Tokens(ids, *(np.load(file) for _ in Tokens._fields[1:]))
    except (EOFError, ValueError) as error:
        raise _cut_short(path, offset) from error


def _cut_short(path: str, offset: int) -> UserError:
    return UserError(
        f"{path}: no whole block of tokens at byte {offset:,}; the file is cut short or damaged: "
        "remove it and run the same command again"
    )
