"""Rows of questions, as Hugging Face's `datasets` and LinkBERT have them, in the form of SQuAD's files.

    {"data": [{"id": "1", "question": "...", "context": "...", "answers": {"text": ["..."], "answer_start": [17]}}]}

The rows may also be a list without "data". A question of SQuAD 2.0 that the passage does not answer has no answer text.
"""

from __future__ import annotations

from typing import Any

_DATA, _CONTEXT = "data", "context"


def to_squad(value: Any) -> Any:
    """Returns {"data": [{"paragraphs": ...}]} for rows; any other value unchanged."""
    rows = value.get(_DATA) if isinstance(value, dict) else value
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) and _CONTEXT in row for row in rows):
        return value
    has_impossible = any(_has_no_answer(row) for row in rows) and not all(_has_no_answer(row) for row in rows)
    paragraphs = [{_CONTEXT: row[_CONTEXT], "qas": [_question(row, has_impossible)]} for row in rows]
    return {_DATA: [{"paragraphs": paragraphs}]}


def _question(row: dict[str, Any], has_impossible: bool) -> dict[str, Any]:
    """Returns an entry of "qas". In a file of which some questions have answers, those without are impossible."""
    answers = row.get("answers")
    question: dict[str, Any] = {name: row[name] for name in ("id", "question", "is_impossible") if name in row}
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        starts = answers.get("answer_start", [])
        question["answers"] = [
            {"text": text, "answer_start": start} for text, start in zip(answers["text"], starts, strict=False)
        ]
    elif answers is not None:
        question["answers"] = answers
    if has_impossible and _has_no_answer(row):
        question["is_impossible"] = True
    return question


def _has_no_answer(row: dict[str, Any]) -> bool:
    answers = row.get("answers")
    return isinstance(answers, dict) and answers.get("text") == []
