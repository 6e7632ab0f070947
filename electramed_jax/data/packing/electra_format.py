"""Rows in google-research/electra's pre-training format: one example a row, two segments of one document.

The recipe of build_pretraining_dataset.py: sentences of a document are collected until they reach the
target length, which is T, or in 5 % of the examples a random length from 5 to T. They are assigned
to A, up to half the target, and to B; in 10 % of the examples all go to A. Tokens beyond T are
dropped and missing tokens are padding: a row holds one example, `[CLS] A [SEP]` or
`[CLS] A [SEP] B [SEP]`. As in the reference, a short sentence may be added to A after a longer one was
assigned to B.

One difference: each document has a random generator of its own, seeded with its id, so that an example
depends on its document alone. In the reference the generator is the process's and unseeded, and the target
length of a document's first example is drawn at the end of the previous document.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.packing.pack import PackedRows

SINGLE_FRACTION = 0.1
SHORTER_FRACTION = 0.05
SHORTEST_TARGET = 5


def build_examples(
    ids: np.ndarray,
    sentence_lengths: np.ndarray,
    sentence_counts: np.ndarray,
    generators: Iterable[random.Random],
    row_length: int,
    special: SpecialIds,
) -> PackedRows:
    """Returns the examples of documents, one a row, in the order of the documents.

    Args:
      ids: int[sum(sentence_lengths)], the documents one after the other, without special tokens.
      sentence_lengths: int[sum(sentence_counts)], tokens of each sentence, each at least 1.
      sentence_counts: int[D], sentences of each document.
      generators: one for each document.
      row_length: T.
    """
    # For each sentence in the order of the examples: its number, whether it is in B, its example.
    sentence_list: list[int] = []
    in_b_list: list[bool] = []
    example_list: list[int] = []
    examples_per_document: list[int] = []
    lengths, begin, count = sentence_lengths.tolist(), 0, 0
    for num_sentences, generator in zip(sentence_counts.tolist(), generators, strict=True):
        before = count
        for a, b in split_segments(lengths[begin : begin + num_sentences], row_length, generator):
            sentence_list += [begin + number for number in (*a, *b)]
            in_b_list += [False] * len(a) + [True] * len(b)
            example_list += [count] * (len(a) + len(b))
            count += 1
        examples_per_document.append(count - before)
        begin += num_sentences
    rows = np.full((count, row_length), special.pad, np.int32)
    if not count:
        return PackedRows(rows, 0, 0)

    # For each token: its index in `ids`, its segment (2 * example, + 1 for B) and its offset in the segment.
    sentence, in_b, example = np.array(sentence_list), np.array(in_b_list), np.array(example_list)
    size = sentence_lengths[sentence]
    starts = np.cumsum(sentence_lengths) - sentence_lengths
    within = np.arange(len(ids)) - np.repeat(np.cumsum(size) - size, size)
    source = np.repeat(starts[sentence], size) + within
    segment = np.repeat(2 * example + in_b, size)
    length = np.bincount(segment, minlength=2 * count)
    offset = np.arange(len(ids)) - np.repeat(np.cumsum(length) - length, length)

    a_length = np.minimum(length[0::2], row_length - 2)
    b_length = np.minimum(length[1::2], np.maximum(0, row_length - a_length - 3))
    room = np.stack([a_length, b_length], 1).reshape(-1)
    column = np.stack([np.ones_like(a_length), a_length + 2], 1).reshape(-1)
    kept = offset < room[segment]
    segment, offset = segment[kept], offset[kept]
    rows[segment // 2, column[segment] + offset] = ids[source[kept]]
    number = np.arange(count)
    has_b = b_length > 0
    rows[:, 0] = special.cls
    rows[number, a_length + 1] = special.sep
    rows[number[has_b], (a_length + b_length + 2)[has_b]] = special.sep
    tokens = int((a_length + b_length + 2 + has_b).sum())
    split_documents = int((np.array(examples_per_document) > 1).sum())
    return PackedRows(rows, tokens, split_documents, len(ids) - int(kept.sum()))


def split_segments(
    sentence_lengths: Sequence[int], row_length: int, generator: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """Yields (sentences of A, sentences of B) for each example of one document, as indices into `sentence_lengths`."""
    pending: list[int] = []
    length = target = 0
    for number, size in enumerate(sentence_lengths):
        if not pending:
            target = row_length
            if generator.random() < SHORTER_FRACTION:
                target = generator.randint(SHORTEST_TARGET, row_length)
        pending.append(number)
        length += size
        if length >= target:
            yield _assign_segments(pending, sentence_lengths, target, generator)
            pending, length = [], 0
    if pending:
        yield _assign_segments(pending, sentence_lengths, target, generator)


def _assign_segments(
    numbers: Sequence[int], sentence_lengths: Sequence[int], target: int, generator: random.Random
) -> tuple[list[int], list[int]]:
    if generator.random() < SINGLE_FRACTION:
        return list(numbers), []
    a_target = (target - 3) // 2  # A stays below it, except for its first and perhaps its last sentence
    a: list[int] = []
    b: list[int] = []
    length = 0
    for number in numbers:
        size = sentence_lengths[number]
        if not a or length + size < a_target or (not b and length < a_target and generator.random() < 0.5):
            a.append(number)
            length += size
        else:
            b.append(number)
    return a, b
