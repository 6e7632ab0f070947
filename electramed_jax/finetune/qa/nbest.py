"""Candidate answers from start and end logits.

As in BERT, the score of an answer is the start logit of its first word piece plus the end logit of its last one. Its
text is copied from the passage, not joined from word pieces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.qa.windows import Window

N_BEST_SIZE = 20  # google-research/bert run_squad.py: n_best_size
MAX_ANSWER_LENGTH = 30  # ... max_answer_length


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate answer: `context[start:stop] == text`.

    Attributes:
      probability: softmax over the scores of the question's candidates.
    """

    text: str
    start: int
    stop: int
    score: float
    probability: float = 0.0


@dataclasses.dataclass(frozen=True)
class Answers:
    """The candidate answers to one question about one passage.

    Attributes:
      candidates: sorted by score, best first, each text once; [] if the passage has no word piece.
      null_score: score of [CLS] as start and end, the lowest over the windows: the score of "no answer".
    """

    candidates: list[Candidate]
    null_score: float

    @property
    def null_margin(self) -> float:
        """The score of "no answer" minus that of the best answer."""
        return self.null_score - self.candidates[0].score if self.candidates else float("inf")

    def text(self, null_threshold: float | None = None) -> str:
        """Returns the best answer; "" if there is none or `null_margin` exceeds the threshold (None: no threshold)."""
        if not self.candidates or (null_threshold is not None and self.null_margin > null_threshold):
            return ""
        return self.candidates[0].text


def answer_questions(
    questions: Sequence[Question],
    windows: Sequence[Window],
    logits: Sequence[np.ndarray],
    max_answer_length: int = MAX_ANSWER_LENGTH,
) -> list[Answers]:
    """Returns the candidate answers to each question, in order.

    Args:
      windows: windows of all questions, from `windows.make_windows`.
      logits: start and end logits of each window, float[n, 2].
      max_answer_length: maximum word pieces of an answer.
    """
    indices: list[list[int]] = [[] for _ in questions]  # of the windows of each question
    for index, window in enumerate(windows):
        indices[window.question].append(index)
    return [
        answer_question(
            question.context,
            [windows[index] for index in of_question],
            [logits[index][:, 0] for index in of_question],
            [logits[index][:, 1] for index in of_question],
            max_answer_length=max_answer_length,
        )
        for question, of_question in zip(questions, indices, strict=True)
    ]


def answer_question(
    context: str,
    windows: Sequence[Window],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    size: int = N_BEST_SIZE,
    max_answer_length: int = MAX_ANSWER_LENGTH,
) -> Answers:
    """Returns the candidate answers to one question.

    The starts and ends of a window are its `size` word pieces with the highest logits. A start counts only in the
    window where it has the most context. Of candidates with one text the highest score is kept, as in
    google-research/bert run_squad.py; Hugging Face's example keeps them all.

    Args:
      windows: all windows of the question, at least one.
      start_logits, end_logits: logits of each window, float[n] or longer with padding.
      size: maximum number of candidates.
      max_answer_length: maximum word pieces of an answer.
    """
    scored: list[tuple[float, int, int]] = []
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        scored += _score_window(window, start, end, size, max_answer_length)
    scored.sort(key=lambda entry: -entry[0])
    by_text: dict[str, Candidate] = {}
    for score, begin, stop in scored:
        if len(by_text) == size:
            break
        text = context[begin:stop]
        by_text.setdefault(text, Candidate(text, begin, stop, score))
    null = min(float(start[0]) + float(end[0]) for start, end in zip(start_logits, end_logits, strict=True))
    return Answers(_with_probabilities(list(by_text.values())), null)


def _score_window(
    window: Window, start: np.ndarray, end: np.ndarray, size: int, max_answer_length: int
) -> list[tuple[float, int, int]]:
    """Returns (score, first character, one past the last) of the answers in a window."""
    pieces = slice(window.first, window.first + len(window.offsets))
    start = np.asarray(start[pieces], np.float64)
    end = np.asarray(end[pieces], np.float64)
    starts = _highest(start, size)
    starts = starts[window.max_context[starts]]
    ends = _highest(end, size)
    i, j = np.meshgrid(starts, ends, indexing="ij")
    allowed = (j >= i) & (j - i < max_answer_length)
    i, j = i[allowed], j[allowed]
    scores = start[i] + end[j]
    return list(zip(scores.tolist(), window.offsets[i, 0].tolist(), window.offsets[j, 1].tolist(), strict=True))


def _highest(logits: np.ndarray, size: int) -> np.ndarray:
    """Returns the indices of the `size` highest logits, highest first, the first among equals."""
    return np.argsort(-logits, kind="stable")[:size]


def _with_probabilities(candidates: list[Candidate]) -> list[Candidate]:
    if not candidates:
        return []
    scores = np.array([candidate.score for candidate in candidates])
    weights = np.exp(scores - scores.max())
    return [
        dataclasses.replace(candidate, probability=probability)
        for candidate, probability in zip(candidates, (weights / weights.sum()).tolist(), strict=True)
    ]
