"""Questions and passages to windows of word pieces, and the answers' places in them.

A window is `[CLS] question [SEP] piece of the passage [SEP]`. A passage that does not fit is cut into windows that
overlap, so that an answer cut by one stands whole in the next; no piece is lost.

`stride` is Google's doc_stride, which BioBERT's and ELECTRAMed's scripts have too: pieces from the start of one window
to the start of the next. Hugging Face's tokenizers call the overlap stride: of windows with room for n pieces of the
passage, theirs is n minus ours.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa.squad import Question

_SPECIAL_PIECES = 3  # [CLS] and two [SEP]
_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class WindowConfig:
    """How passages are cut, in word pieces. The numbers are BERT's run_squad.py's and ELECTRAMed's.

    Attributes:
      max_seq_length: of a window, with [CLS] and both [SEP].
      doc_stride: from the start of one window to the start of the next.
      max_query_length: a longer question loses its end.
    """

    max_seq_length: int = 384
    doc_stride: int = 128
    max_query_length: int = 64

    def __post_init__(self) -> None:
        if self.max_query_length < 1 or self.doc_stride < 1:
            raise UserError(
                f"config.qa.doc_stride={self.doc_stride}, config.qa.max_query_length={self.max_query_length}: wanted numbers above 0"
            )
        room = self.max_seq_length - self.max_query_length - _SPECIAL_PIECES
        if room < self.doc_stride:
            enough = self.max_query_length + _SPECIAL_PIECES + 2 * self.doc_stride
            raise UserError(
                f"config.task.max_seq_length={self.max_seq_length} leaves room for {room} pieces of the passage beside a "
                f"question of config.qa.max_query_length={self.max_query_length}: less than config.qa.doc_stride={self.doc_stride}, so "
                f"pieces between windows would be lost; use a max_seq_length of {enough} or more, or a smaller doc_stride"
            )


@dataclasses.dataclass(frozen=True)
class Window:
    """One row of input, without padding.

    Attributes:
      question: index of the question it belongs to.
      input_ids: int32[n].
      first: index in `input_ids` of the first piece of the passage; token types are 0 before it and 1 from it on.
      offsets: int32[c, 2], characters of the passage each of its c pieces is of.
      max_context: bool[c], whether of all windows with this piece this one has the most around it.
      start, end: the answer's first and last piece as indices in `input_ids`; 0, [CLS], where it holds no answer.
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
        return self.start > 0


@dataclasses.dataclass
class WindowStats:
    """Counts of a split's questions and windows.

    Attributes:
      truncated_questions: questions with more than `max_query_length` word pieces.
      answered: questions with an answer.
      widened_answers: answers that begin or end inside a word piece; the label covers the whole piece.
      unanswerable: ids of answered questions whose answer fits in no window; they are trained as unanswered.
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
    questions: Sequence[Question], tokenizer: Tokenizer, windowing: WindowConfig = WindowConfig()
) -> tuple[list[Window], WindowStats]:
    """The windows of all questions, in order; each question has at least one."""
    stats = WindowStats(questions=len(questions))
    found: list[Window] = []
    for begin in range(0, len(questions), _BATCH):
        batch = questions[begin : begin + _BATCH]
        contexts = list(dict.fromkeys(question.context for question in batch))
        pieces = dict(zip(contexts, tokenizer.encode_with_offsets(contexts), strict=True))
        asked = tokenizer.encode_batch([question.text for question in batch])
        for number, (question, ids) in enumerate(zip(batch, asked, strict=True), begin):
            stats.truncated_questions += len(ids) > windowing.max_query_length
            head = np.concatenate(
                [[tokenizer.special.cls], ids[: windowing.max_query_length], [tokenizer.special.sep]]
            ).astype(np.int32)
            context_ids, offsets = pieces[question.context]
            span = _span(question, offsets)
            of_question = _cut(number, head, context_ids, offsets, span, tokenizer.special.sep, windowing)
            found += of_question
            if question.answers:
                stats.answered += 1
                stats.widened_answers += span is not None and _is_widened(question, offsets, span)
                if not any(window.holds_answer for window in of_question):
                    stats.unanswerable.append(question.id)
    stats.windows = len(found)
    stats.windows_with_answer = sum(window.holds_answer for window in found)
    return found, stats


def window_starts(pieces: int, room: int, stride: int) -> list[int]:
    """Where the windows over a passage begin: steps of `stride` until one reaches the end."""
    return list(range(0, max(1, pieces - room + stride), stride))


def max_context_windows(begins: Sequence[int], pieces: int, room: int) -> np.ndarray:
    """int64[pieces]: for each piece the window in which it has the most context.

    Context is the smaller of the numbers of pieces before and after it; of equals the first window counts. That is
    google-research/bert's rule (run_squad.py): the window's length, which it adds, never decides, as only the last
    window can be shorter.
    """
    first = np.asarray(begins)[:, None]
    length = np.minimum(room, pieces - first)
    before = np.arange(pieces)[None, :] - first
    after = length - 1 - before
    return np.minimum(before, after).argmax(axis=0)


def _span(question: Question, offsets: np.ndarray) -> tuple[int, int] | None:
    """The first and last piece of the passage that share a character with the first answer."""
    if not question.answers:
        return None
    answer = question.answers[0]
    inside = np.flatnonzero((offsets[:, 1] > answer.start) & (offsets[:, 0] < answer.stop))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _is_widened(question: Question, offsets: np.ndarray, span: tuple[int, int]) -> bool:
    answer = question.answers[0]
    return bool(offsets[span[0], 0] < answer.start or offsets[span[1], 1] > answer.stop)


def _cut(
    number: int,
    head: np.ndarray,
    ids: np.ndarray,
    offsets: np.ndarray,
    span: tuple[int, int] | None,
    sep: int,
    windowing: WindowConfig,
) -> list[Window]:
    room = windowing.max_seq_length - len(head) - 1
    begins = window_starts(len(ids), room, windowing.doc_stride)
    best = max_context_windows(begins, len(ids), room)
    cut = []
    for w, begin in enumerate(begins):
        stop = min(begin + room, len(ids))
        shift = len(head) - begin
        whole = span is not None and begin <= span[0] and span[1] < stop
        cut.append(
            Window(
                question=number,
                input_ids=np.concatenate([head, ids[begin:stop], [sep]]).astype(np.int32),
                first=len(head),
                offsets=offsets[begin:stop],
                max_context=best[begin:stop] == w,
                start=span[0] + shift if whole else 0,
                end=span[1] + shift if whole else 0,
            )
        )
    return cut
