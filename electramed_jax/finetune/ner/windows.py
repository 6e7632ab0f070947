"""Sentences longer than a row, cut at word borders so that each word is asked about once, with words around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """Words begin .. stop-1 are read; of those, words first .. last-1 are asked about."""

    begin: int
    stop: int
    first: int
    last: int


def cut(lengths: Sequence[int], room: int) -> list[Window]:
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
