"""Words in windows of word pieces, and the logits of each word back from them.

A word is asked about at its first piece, in the one window that has words around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import Outputs


class Window(NamedTuple):
    """Words begin .. stop-1 are read; of those, words first .. last-1 are asked about."""

    begin: int
    stop: int
    first: int
    last: int


def cut_windows(lengths: Sequence[int], room: int) -> list[Window]:
    """Windows over words of these lengths (in pieces, each at most `room`), each of at most `room` pieces.

    Neighbours overlap by half a window, and share the overlap's words equally: but at the ends of the sentence a word
    has about a quarter of a window before it and after it.
    """
    sums = [0, *itertools.accumulate(lengths)]
    words = len(lengths)
    begins, stops = [0], []
    while True:
        begin = begins[-1]
        stop = begin
        while stop < words and sums[stop + 1] - sums[begin] <= room:
            stop += 1
        assert stop > begin or not words, "a word is longer than a window"
        stops.append(stop)
        if stop == words:
            break
        begin += 1
        while begin < stop and sums[stop] - sums[begin] > room // 2:
            begin += 1
        begins.append(begin)
    borders = [0]
    for begin, stop in zip(begins[1:], stops[:-1], strict=True):
        middle = (sums[begin] + sums[stop]) / 2
        borders.append(next(word for word in range(begin, stop + 1) if sums[word] >= middle))
    borders.append(words)
    windows = [Window(*one) for one in zip(begins, stops, borders[:-1], borders[1:], strict=True)]
    return [window for window in windows if window.first < window.last]


class WindowExample(NamedTuple):
    """A window, and where its answers belong.

    Attributes:
      input_ids: int32[n], with [CLS] and [SEP].
      positions: int64[w], indices in `input_ids` of the first piece of each word that this window predicts.
      sentence: index of the sentence.
      first_word: index in the sentence of the first predicted word.
    """

    input_ids: np.ndarray
    positions: np.ndarray
    sentence: int
    first_word: int


def make_examples(
    sentences: Sequence[Sequence[Sequence[int]]], max_length: int, special: SpecialIds
) -> list[WindowExample]:
    """The windows of sentences, each word of which is a list of at least one piece; longer ones lose their end."""
    room = max_length - 2
    made = []
    for number, sentence in enumerate(sentences):
        of_words = [ids[:room] for ids in sentence]
        for begin, stop, first, last in cut_windows([len(ids) for ids in of_words], room):
            starts = 1 + np.cumsum([0, *(len(ids) for ids in of_words[begin : stop - 1])])
            ids = [special.cls, *(piece for ids in of_words[begin:stop] for piece in ids), special.sep]
            made.append(WindowExample(np.array(ids, np.int32), starts[first - begin : last - begin], number, first))
    return made


def join_logits(made: Sequence[WindowExample], outputs: Outputs, lengths: Sequence[int]) -> list[np.ndarray]:
    """float[words, labels] of each sentence, of so many words each: the inverse of `make_examples`."""
    found: list[list[np.ndarray]] = [[] for _ in lengths]
    for example, of_pieces in zip(made, outputs, strict=True):
        found[example.sentence].append(of_pieces[example.positions])
    joined = [np.concatenate(parts) if parts else np.zeros((0, 0), np.float32) for parts in found]
    assert [len(one) for one in joined] == list(lengths)
    return joined
