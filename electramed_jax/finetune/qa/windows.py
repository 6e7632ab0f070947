"""Windows of word pieces over questions and passages, labelled with the answers.

A window is `[CLS] question [SEP] part of the passage [SEP]`. A passage that does not fit is split into overlapping
windows, so that an answer at the border of one is complete in the next. No word piece is lost.

`doc_stride` has the meaning of google-research/bert, BioBERT and ELECTRAMed: word pieces from the start of one window
to the start of the next. The `stride` of Hugging Face's tokenizers is the overlap: the word pieces of the passage in a
window, minus `doc_stride`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa.squad import Question

_SPECIAL_PIECES = 3  # [CLS] and two [SEP]
_MIN_ROOM = 8  # word pieces of the passage in a window; two windows share half of it
_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """Sizes of windows, in word pieces. The defaults are those of BERT's run_squad.py and of ELECTRAMed.

    Attributes:
      max_seq_length: length of a window, with [CLS] and both [SEP].
      doc_stride: distance from the start of one window to the start of the next. If a window has less room for the
        passage, half of that room, so that no word piece is lost.
      max_query_length: a longer question is truncated.
    """

    max_seq_length: int = 384
    doc_stride: int = 128
    max_query_length: int = 64

    def __post_init__(self) -> None:
        if self.max_query_length < 1 or self.doc_stride < 1:
            raise UserError(
                f"config.qa.doc_stride={self.doc_stride}, config.qa.max_query_length={self.max_query_length}: wanted "
                "numbers above 0"
            )
        room = self.room(self.max_query_length)
        if room < min(self.doc_stride, _MIN_ROOM):
            enough = self.max_query_length + _SPECIAL_PIECES + _MIN_ROOM
            raise UserError(
                f"config.task.max_seq_length={self.max_seq_length} leaves room for {room} word pieces of the passage "
                f"next to a question of config.qa.max_query_length={self.max_query_length}; use a max_seq_length of "
                f"{enough} or more, or a smaller max_query_length"
            )

    def room(self, query_length: int) -> int:
        """Returns the word pieces of the passage in a window with a question of this length."""
        return self.max_seq_length - query_length - _SPECIAL_PIECES

    @property
    def stride(self) -> int:
        """The distance between windows that is used: the same for short and long questions."""
        room = self.room(self.max_query_length)
        return self.doc_stride if room >= self.doc_stride else room // 2


DEFAULT_WINDOWS = WindowConfig()


@dataclasses.dataclass(frozen=True)
class Window:
    """One example, without padding.

    Attributes:
      question: index of its question.
      input_ids: int32[n].
      first: index in `input_ids` of the first word piece of the passage; token types are 0 before it, else 1.
      offsets: int32[c, 2], start and end character in the passage of each of its c word pieces.
      max_context: bool[c], whether this window is the one with the most context around the word piece.
      start, end: first and last word piece of the answer, as indices in `input_ids`; 0 ([CLS]) without an answer.
    """

    question: int
    input_ids: np.ndarray
    first: int
    offsets: np.ndarray
    max_context: np.ndarray
    start: int = 0
    end: int = 0

    @property
    def holds_answer(self) -> bool:
        """Whether the window contains the whole answer."""
        return self.start > 0


@dataclasses.dataclass
class WindowStats:
    """Counts of a split's questions and windows.

    Attributes:
      truncated_questions: questions with more than `max_query_length` word pieces.
      answered: questions with an answer.
      widened_answers: answers that begin or end inside a word piece; the label covers the whole piece.
      unanswerable: ids of answered questions with an answer that fits in no window; they are trained as unanswered.
    """

    questions: int = 0
    windows: int = 0
    windows_with_answer: int = 0
    truncated_questions: int = 0
    answered: int = 0
    widened_answers: int = 0
    unanswerable: list[str] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, int]:
        """Returns the entry of data.json, under the keys of earlier versions."""
        return {
            "questions": self.questions,
            "windows": self.windows,
            "windows_with_answer": self.windows_with_answer,
            "cut_questions": self.truncated_questions,
            "answered": self.answered,
            "widened": self.widened_answers,
            "lost": len(self.unanswerable),
        }


def make_windows(
    questions: Sequence[Question], tokenizer: Tokenizer, windowing: WindowConfig = DEFAULT_WINDOWS
) -> tuple[list[Window], WindowStats]:
    """Returns the windows of all questions, in order, at least one per question; and their counts."""
    stats = WindowStats(questions=len(questions))
    windows: list[Window] = []
    for begin in range(0, len(questions), _BATCH):
        batch = questions[begin : begin + _BATCH]
        contexts = list(dict.fromkeys(question.context for question in batch))
        encoded = dict(zip(contexts, tokenizer.encode_with_offsets(contexts), strict=True))
        queries = tokenizer.encode_batch([question.text for question in batch])
        for index, (question, ids) in enumerate(zip(batch, queries, strict=True), begin):
            stats.truncated_questions += len(ids) > windowing.max_query_length
            head = np.concatenate(
                [[tokenizer.special.cls], ids[: windowing.max_query_length], [tokenizer.special.sep]]
            ).astype(np.int32)
            context_ids, offsets = encoded[question.context]
            span = _span(question, offsets)
            question_windows = _split_passage(index, head, context_ids, offsets, span, tokenizer.special.sep, windowing)
            windows += question_windows
            if question.answers:
                stats.answered += 1
                stats.widened_answers += span is not None and _is_widened(question, offsets, span)
                if not any(window.holds_answer for window in question_windows):
                    stats.unanswerable.append(question.id)
    stats.windows = len(windows)
    stats.windows_with_answer = sum(window.holds_answer for window in windows)
    return windows, stats


def window_starts(pieces: int, room: int, stride: int) -> list[int]:
    """Returns the first word piece of each window over a passage: steps of `stride` until one reaches the end."""
    return list(range(0, max(1, pieces - room + stride), stride))


def max_context_windows(begins: Sequence[int], pieces: int, room: int) -> np.ndarray:
    """Returns, for each word piece, the window in which it has the most context, int64[pieces].

    Context is the smaller of the numbers of word pieces before and after it; the first of equal windows counts. This is
    the rule of google-research/bert (run_squad.py). That rule also adds a fraction of the window's length, which never
    decides, as only the last window can be shorter.
    """
    first = np.asarray(begins)[:, None]
    length = np.minimum(room, pieces - first)
    before = np.arange(pieces)[None, :] - first
    after = length - 1 - before
    return np.minimum(before, after).argmax(axis=0)


def _span(question: Question, offsets: np.ndarray) -> tuple[int, int] | None:
    """Returns the first and last word piece that share a character with the first answer; None if there is none."""
    if not question.answers:
        return None
    answer = question.answers[0]
    inside = np.flatnonzero((offsets[:, 1] > answer.start) & (offsets[:, 0] < answer.stop))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _is_widened(question: Question, offsets: np.ndarray, span: tuple[int, int]) -> bool:
    """Returns whether the word pieces of the answer contain more characters than the answer."""
    answer = question.answers[0]
    return bool(offsets[span[0], 0] < answer.start or offsets[span[1], 1] > answer.stop)


def _split_passage(
    question: int,
    head: np.ndarray,
    ids: np.ndarray,
    offsets: np.ndarray,
    span: tuple[int, int] | None,
    sep: int,
    windowing: WindowConfig,
) -> list[Window]:
    room = windowing.max_seq_length - len(head) - 1
    begins = window_starts(len(ids), room, windowing.stride)
    best = max_context_windows(begins, len(ids), room)
    windows = []
    for w, begin in enumerate(begins):
        stop = min(begin + room, len(ids))
        shift = len(head) - begin
        inside = span if span is not None and begin <= span[0] and span[1] < stop else None
        windows.append(
            Window(
                question=question,
                input_ids=np.concatenate([head, ids[begin:stop], [sep]]).astype(np.int32),
                first=len(head),
                offsets=offsets[begin:stop],
                max_context=best[begin:stop] == w,
                start=inside[0] + shift if inside else 0,
                end=inside[1] + shift if inside else 0,
            )
        )
    return windows
