"""Windows of word pieces over long sentences, and the logits and the tag of each word.

A word is predicted at its first piece, in the window where it has the most words around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from electramed_jax.config.finetune import ARGMAX
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.task import viterbi
from electramed_jax.finetune.task.task import Outputs

OVERLAP = 2  # adjacent windows share one OVERLAP-th of a window


class Window(NamedTuple):
    """A window reads words begin .. stop-1 and predicts words first .. last-1 of them."""

    begin: int
    stop: int
    first: int
    last: int


def cut_windows(lengths: Sequence[int], room: int) -> list[Window]:
    """Returns windows of at most `room` word pieces over words of these lengths (in pieces, each at most `room`).

    Adjacent windows overlap by half a window. Each predicts half of the words they share, so that a predicted word has
    about a quarter of a window before and after it, except at the ends of the sentence.
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
        while begin < stop and sums[stop] - sums[begin] > room // OVERLAP:
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
    """A window as model input, and the words that it predicts.

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
    """Returns the windows of all sentences, in order.

    Args:
      sentences: for each word, its word pieces, at least one; a word longer than a window loses its end.
      max_length: maximum word pieces of a window, with [CLS] and [SEP].
    """
    room = max_length - 2
    windows = []
    for index, sentence in enumerate(sentences):
        words = [ids[:room] for ids in sentence]
        for begin, stop, first, last in cut_windows([len(ids) for ids in words], room):
            starts = 1 + np.cumsum([0, *(len(ids) for ids in words[begin : stop - 1])])
            ids = [special.cls, *(piece for ids in words[begin:stop] for piece in ids), special.sep]
            windows.append(WindowExample(np.array(ids, np.int32), starts[first - begin : last - begin], index, first))
    return windows


def join_logits(windows: Sequence[WindowExample], outputs: Outputs, lengths: Sequence[int]) -> list[np.ndarray]:
    """Returns the logits of the words of each sentence, float[words, labels]: the inverse of `make_examples`.

    Args:
      outputs: logits of each window, float[n, labels].
      lengths: number of words of each sentence.
    """
    parts: list[list[np.ndarray]] = [[] for _ in lengths]
    for window, logits in zip(windows, outputs, strict=True):
        parts[window.sentence].append(logits[window.positions])
    joined = [np.concatenate(of_one) if of_one else np.zeros((0, 0), np.float32) for of_one in parts]
    assert [len(logits) for logits in joined] == list(lengths)
    return joined


def make_decoder(
    decoder: str, labels: Sequence[str], transitions: np.ndarray | None
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the function from the logits of a sentence, float[words, labels], to its labels, int64[words].

    Args:
      decoder: value of config.ner.decoder.
      transitions: trained transition scores of "crf", float[K + 1, K].
    """
    if decoder == ARGMAX:
        return lambda logits: logits.argmax(axis=-1) if len(logits) else np.zeros(0, np.int64)
    scores = tags.iob2_transitions(labels) + (0.0 if transitions is None else transitions)
    return lambda logits: viterbi.best_path(logits, scores)
