"""google-research/electra's pre-training examples: two segments of one document to a row.

The recipe of build_pretraining_dataset.py: sentences of a document are gathered until they reach the
target length, which is T, or in 5 % of the examples a random length from 5 to T. They are dealt out
to A, up to half the target, and to B; in 10 % of the examples all go to A. What goes beyond T is
dropped, and what is missing is padding: a row holds one example, `[CLS] A [SEP]` or
`[CLS] A [SEP] B [SEP]`. As there, a short sentence may still go to A after a longer one went to B.

Mended: the randomness is a document's own, made from its id, so that an example depends on its
document alone (there it is the process's, unseeded, and the target length of a document's first
example is drawn at the end of the document before).
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
    sentences: np.ndarray,
    sentence_counts: np.ndarray,
    randoms: Iterable[random.Random],
    row_length: int,
    special: SpecialIds,
) -> PackedRows:
    """Makes the examples of documents.

    Args:
      ids: int[sum(sentences)], the documents one after the other, without special tokens.
      sentences: int[sum(sentence_counts)], tokens of each sentence, each at least 1.
      sentence_counts: int[D], sentences of each document.
      randoms: one of each document.
      row_length: T.

    Returns:
      One example a row, in the order of the documents.
    """
    order, in_b, example, per_document = [], [], [], []
    sizes, begin, count = sentences.tolist(), 0, 0
    for of_document, source in zip(sentence_counts.tolist(), randoms, strict=True):
        before = count
        for a, b in split_segments(sizes[begin : begin + of_document], row_length, source):
            order += [begin + number for number in (*a, *b)]
            in_b += [False] * len(a) + [True] * len(b)
            example += [count] * (len(a) + len(b))
            count += 1
        per_document.append(count - before)
        begin += of_document
    rows = np.full((count, row_length), special.pad, np.int32)
    if not count:
        return PackedRows(rows, 0, 0)

    # Token by token: where it comes from, its example and segment, and its place in the segment.
    order, in_b, example = np.array(order), np.array(in_b), np.array(example)
    size = sentences[order]
    starts = np.cumsum(sentences) - sentences
    within = np.arange(len(ids)) - np.repeat(np.cumsum(size) - size, size)
    source = np.repeat(starts[order], size) + within
    segment = np.repeat(2 * example + in_b, size)
    length = np.bincount(segment, minlength=2 * count)
    place = np.arange(len(ids)) - np.repeat(np.cumsum(length) - length, length)

    a = np.minimum(length[0::2], row_length - 2)
    b = np.minimum(length[1::2], np.maximum(0, row_length - a - 3))
    room = np.stack([a, b], 1).reshape(-1)
    column = np.stack([np.ones_like(a), a + 2], 1).reshape(-1)
    kept = place < room[segment]
    segment, place = segment[kept], place[kept]
    rows[segment // 2, column[segment] + place] = ids[source[kept]]
    number = np.arange(count)
    rows[:, 0] = special.cls
    rows[number, a + 1] = special.sep
    rows[number[b > 0], (a + b + 2)[b > 0]] = special.sep
    tokens = int((a + b + 2 + (b > 0)).sum())
    return PackedRows(rows, tokens, int((np.array(per_document) > 1).sum()), len(ids) - int(kept.sum()))


def split_segments(
    sentences: Sequence[int], row_length: int, source: random.Random
) -> Iterator[tuple[list[int], list[int]]]:
    """The numbers of the sentences in A and in B, for each example of one document.

    Args:
      sentences: tokens of each.
    """
    waiting: list[int] = []
    length = target = 0
    for number, size in enumerate(sentences):
        if not waiting:
            target = row_length
            if source.random() < SHORTER_FRACTION:
                target = source.randint(SHORTEST_TARGET, row_length)
        waiting.append(number)
        length += size
        if length >= target:
            yield _deal(waiting, sentences, target, source)
            waiting, length = [], 0
    if waiting:
        yield _deal(waiting, sentences, target, source)


def _deal(
    numbers: Sequence[int], sentences: Sequence[int], target: int, source: random.Random
) -> tuple[list[int], list[int]]:
    if source.random() < SINGLE_FRACTION:
        return list(numbers), []
    wanted = (target - 3) // 2  # of A, whose sentences stay below it, but for the first and perhaps the last
    a: list[int] = []
    b: list[int] = []
    length = 0
    for number in numbers:
        size = sentences[number]
        if not a or length + size < wanted or (not b and length < wanted and source.random() < 0.5):
            a.append(number)
            length += size
        else:
            b.append(number)
    return a, b
