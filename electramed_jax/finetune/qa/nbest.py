"""Start and end logits of a question's windows to answers cut from its passage.

The two ends are scored independently, as in BERT: an answer's score is the logit of its first piece as a start plus
that of its last piece as an end. The answer's text is the passage's own characters, never pieces put together again.
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
    """`context[start:stop] == text`; `probability` is a softmax of the scores of the question's candidates."""

    text: str
    start: int
    stop: int
    score: float
    probability: float = 0.0


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers a model offers to one question about one passage.

    Attributes:
      candidates: the best first, each text once; none if the passage has no word piece.
      null_score: of [CLS] as start and end, in the window where that is lowest: how sure the model is
        that the passage does not answer the question.
    """

    candidates: list[Candidate]
    null_score: float

    @property
    def null_margin(self) -> float:
        """By how much "no answer" scores above the best answer."""
        return self.null_score - self.candidates[0].score if self.candidates else float("inf")

    def text(self, null_threshold: float | None = None) -> str:
        """The best answer, or "" where there is none or `null_margin` exceeds the threshold (None: always answer)."""
        if not self.candidates or (null_threshold is not None and self.null_margin > null_threshold):
            return ""
        return self.candidates[0].text


def answer_questions(
    questions: Sequence[Question],
    windows: Sequence[Window],
    logits: Sequence[np.ndarray],
    max_answer_length: int = MAX_ANSWER_LENGTH,
) -> list[Answers]:
    """The answers of each question, in order.

    Args:
      windows: of all questions, as `spans.windows` made them.
      logits: of each window, float[n, 2], start and end.
    """
    found: list[list[int]] = [[] for _ in questions]
    for place, window in enumerate(windows):
        found[window.question].append(place)
    return [
        answer_question(
            question.context,
            [windows[place] for place in places],
            [logits[place][:, 0] for place in places],
            [logits[place][:, 1] for place in places],
            max_answer_length=max_answer_length,
        )
        for question, places in zip(questions, found, strict=True)
    ]


def answer_question(
    context: str,
    windows: Sequence[Window],
    start_logits: Sequence[np.ndarray],
    end_logits: Sequence[np.ndarray],
    size: int = N_BEST_SIZE,
    max_answer_length: int = MAX_ANSWER_LENGTH,
) -> Answers:
    """The answers of one question.

    Of each window, starts and ends are the `size` pieces of the passage with the highest logits; a start counts only
    in the window where its piece has the most context. Ends of one text: the highest score stands for it
    (google-research/bert run_squad.py; Hugging Face's example keeps them all).

    Args:
      windows: all of this question, at least one.
      start_logits, end_logits: of each window, float[n] or longer, where padding follows.
    """
    found: list[tuple[float, int, int]] = []
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        found += _of_window(window, start, end, size, max_answer_length)
    found.sort(key=lambda entry: -entry[0])
    by_text: dict[str, Candidate] = {}
    for score, begin, stop in found:
        if len(by_text) == size:
            break
        text = context[begin:stop]
        by_text.setdefault(text, Candidate(text, begin, stop, score))
    null = min(float(start[0]) + float(end[0]) for start, end in zip(start_logits, end_logits, strict=True))
    return Answers(_with_probabilities(list(by_text.values())), null)


def _of_window(
    window: Window, start: np.ndarray, end: np.ndarray, size: int, max_answer_length: int
) -> list[tuple[float, int, int]]:
    """(score, first character, one past the last) of a window's best answers; `size` at most of them matter."""
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
    """Indices of the highest, the highest first; of equals the first."""
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
