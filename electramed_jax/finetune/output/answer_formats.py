"""Output formats of answers to questions: JSON lines, CSV, HTML. Those of SQuAD and BioASQ are in `finetune/qa`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from electramed_jax.common.rounding import round_floats
from electramed_jax.finetune.output import entity_tables, view
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.squad import Question

FORMATS = ("jsonl", "csv", "html")
NUM_ANSWERS = 5  # candidates written of a question
CSV_COLUMNS = ("id", "rank", "start", "end", "text", "probability")
Answered = tuple[Question, Answers]


def get_writer(form: str) -> Callable[[Iterable[Answered], float | None, str], Iterator[str]]:
    """Returns the writer of one of `FORMATS`: (answered questions, null threshold, model) -> pieces of text."""
    return {"jsonl": _jsonl, "csv": _csv, "html": _html}[form]


def candidates(answers: Answers) -> list[dict[str, Any]]:
    """Returns text, characters in the passage and probability of the best candidates."""
    return [
        round_floats({"text": one.text, "start": one.start, "end": one.stop, "probability": one.probability})
        for one in answers.candidates[:NUM_ANSWERS]
    ]


def _jsonl(answered: Iterable[Answered], threshold: float | None, _model: str) -> Iterator[str]:
    for question, answers in answered:
        line = {"id": question.id, "answer": answers.text(threshold), "answers": candidates(answers)}
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _csv(answered: Iterable[Answered], _threshold: float | None, _model: str) -> Iterator[str]:
    yield entity_tables.csv_line(CSV_COLUMNS)
    for question, answers in answered:
        for rank, one in enumerate(candidates(answers), 1):
            yield entity_tables.csv_line((question.id, rank, one["start"], one["end"], one["text"], one["probability"]))


def _html(answered: Iterable[Answered], threshold: float | None, model: str) -> Iterator[str]:
    yield view.page_start("Answers")
    yield view.note(f"Model: {model}")
    for question, answers in answered:
        body = [view.note(question.id), view.answers(question.context, answers.text(threshold), candidates(answers))]
        yield view.card(question.text, body)
    yield view.page_end()
