"""A long sentence is split so that every word is predicted once, with words around it."""

from __future__ import annotations

import random

import pytest

from electramed_jax.finetune.ner import word_windows


def test_a_sentence_that_fits_is_one_window():
    assert word_windows.cut_windows([1, 2, 3], 6) == [word_windows.Window(0, 3, 0, 3)]


def test_every_word_is_predicted_once_and_every_window_fits():
    draw = random.Random(0)
    for _ in range(500):
        room = draw.randrange(4, 30)
        lengths = [draw.randrange(1, room + 1) if draw.random() < 0.1 else draw.randrange(1, 5) for _ in range(90)]
        lengths = [min(length, room) for length in lengths]
        windows = word_windows.cut_windows(lengths, room)
        predicted = [word for window in windows for word in range(window.first, window.last)]
        assert predicted == list(range(len(lengths)))
        for begin, stop, first, last in windows:
            assert begin <= first < last <= stop
            assert sum(lengths[begin:stop]) <= room


def test_a_word_inside_a_sentence_has_a_quarter_of_a_window_on_either_side():
    room = 40
    for begin, stop, first, last in word_windows.cut_windows([1] * 500, room):
        assert begin == 0 or first - begin >= room // 4
        assert stop == 500 or stop - last >= room // 4


def test_a_word_longer_than_a_window_is_a_programming_error():
    with pytest.raises(AssertionError):
        word_windows.cut_windows([1, 9, 1], 8)
