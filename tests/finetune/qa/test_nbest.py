from __future__ import annotations

import math

import numpy as np
import pytest

from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa.windows import Window

CONTEXT = "".join(f"w{number:02d} " for number in range(40))


def windows(begins: list[int], length: int, best: list[int]) -> list[Window]:
    """Windows over the words of CONTEXT; `best[i]` is the window in which word i has the most context."""
    made = []
    for number, begin in enumerate(begins):
        words = np.arange(begin, min(begin + length, 40))
        offsets = np.stack([4 * words, 4 * words + 3], axis=1).astype(np.int32)
        most = np.array([best[word] == number for word in words])
        made.append(Window(0, np.zeros(3 + len(words) + 1, np.int32), 3, offsets, most))
    return made


def every_answer(cut, starts, ends, size, max_answer_length):
    """The plain definition: all pairs of the best starts and ends, one by one."""
    scores: dict[str, float] = {}
    for window, start, end in zip(cut, starts, ends, strict=True):
        places = range(window.first, window.first + len(window.offsets))
        best_starts = sorted(places, key=lambda place: -start[place])[:size]
        best_ends = sorted(places, key=lambda place: -end[place])[:size]
        for i in best_starts:
            for j in best_ends:
                if window.max_context[i - window.first] and i <= j < i + max_answer_length:
                    text = CONTEXT[window.offsets[i - window.first, 0] : window.offsets[j - window.first, 1]]
                    score = float(start[i]) + float(end[j])
                    scores[text] = max(score, scores.get(text, -math.inf))
    ranked = sorted(scores.items(), key=lambda entry: -entry[1])[:size]
    total = sum(math.exp(score) for _, score in ranked)
    return [(text, score, math.exp(score) / total) for text, score in ranked]


@pytest.mark.parametrize(("size", "max_answer_length"), [(20, 30), (5, 3), (40, 8)])
def test_the_best_answers_are_those_of_a_count_pair_by_pair(size, max_answer_length):
    rng = np.random.default_rng(0)
    cut = windows([0, 15, 30], 25, [0] * 20 + [1] * 12 + [2] * 8)
    for _ in range(20):
        starts, ends = ([rng.normal(0, 3, 60).astype(np.float32) for _ in cut] for _ in range(2))  # with padding
        found = nbest.answer_question(CONTEXT, cut, starts, ends, size, max_answer_length)
        wanted = every_answer(cut, starts, ends, size, max_answer_length)
        assert [c.text for c in found.candidates] == [text for text, _, _ in wanted]
        for candidate, (_, score, probability) in zip(found.candidates, wanted, strict=True):
            assert candidate.score == pytest.approx(score) and candidate.probability == pytest.approx(probability)
            assert CONTEXT[candidate.start : candidate.stop] == candidate.text
        assert found.null_score == pytest.approx(min(s[0] + e[0] for s, e in zip(starts, ends, strict=True)))


def test_a_text_that_occurs_twice_in_the_passage_is_one_answer():
    context = "p53 p53"
    window = Window(0, np.zeros(6, np.int32), 3, np.array([[0, 3], [4, 7]], np.int32), np.ones(2, bool))
    logits = np.array([0, 0, 0, 2.0, 1.0, 0])
    found = nbest.answer_question(context, [window], [logits], [logits])
    assert [c.text for c in found.candidates] == ["p53", "p53 p53"]
    assert sum(c.probability for c in found.candidates) == pytest.approx(1)


def test_no_answer_is_given_where_its_margin_exceeds_the_threshold():
    window = Window(0, np.zeros(5, np.int32), 3, np.array([[0, 3]], np.int32), np.ones(1, bool))
    logits = np.array([3.0, 0, 0, 2.0, 0])
    found = nbest.answer_question("p53", [window], [logits], [logits])
    assert found.null_margin == pytest.approx(2.0)
    assert (found.text(None), found.text(2.5), found.text(1.5)) == ("p53", "p53", "")


def test_a_passage_without_word_pieces_has_no_answer():
    window = Window(0, np.zeros(4, np.int32), 3, np.empty((0, 2), np.int32), np.empty(0, bool))
    found = nbest.answer_question("", [window], [np.zeros(4)], [np.zeros(4)])
    assert found.candidates == [] and found.text() == "" and found.null_margin == math.inf
