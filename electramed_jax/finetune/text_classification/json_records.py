"""Rows of JSON files: one object per row, PubMedQA, BioASQ's yes/no questions, and nested columns of `datasets`.

    rows      {"sentence1": "...", "sentence2": "...", "label": "yes"}, one per line, in a list, or in {"data": [...]}
    PubMedQA  {"21645374": {"QUESTION": "...", "CONTEXTS": ["...", ...], "LONG_ANSWER": "...", "final_decision": "yes"}}
    datasets  {"question": "...", "context": {"contexts": ["...", ...]}, "long_answer": "...", "final_decision": "yes"}
    BioASQ    {"questions": [{"type": "yesno", "body": "...", "snippets": [{"text": "..."}], "exact_answer": "yes"}]}
    SQuAD's   {"data": [{"paragraphs": [{"context": "...", "qas": [{"question": "...", "answers": "yes"}]}]}]}

All become rows with the columns question, context, long_answer and final_decision or label. The parts of a context are
joined by spaces. A question of BioASQ is one row with all its snippets; questions of other types, and those without a
snippet, are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from electramed_jax.common import console
from electramed_jax.finetune.task import json_rows, split_files

YES_NO = "yesno"  # type of a BioASQ question
_PUBMEDQA = {"QUESTION": "question", "CONTEXTS": "context", "LONG_ANSWER": "long_answer"}
_PARTS = ("contexts", "text")  # keys of a nested column that hold its text
Row = dict[str, Any]


def read_rows(path: str) -> list[tuple[int, Row]]:
    """Returns (line from 1, row) of each record of a JSON file.

    Raises:
      UserError: the file is not JSON, or of no known form; names file and line.
    """
    value, text = json_rows.read_value(path)
    rows: list[tuple[int, Row]]
    if isinstance(value, dict) and isinstance(value.get("questions"), list):
        all_rows = list(_bioasq_rows(path, value["questions"], text))
        rows = [(line, row) for line, row in all_rows if row["context"]]
        if len(rows) < len(all_rows):
            console.say(f"{path}: {len(all_rows) - len(rows)} yes/no questions without a snippet are left out")
        if not rows:
            split_files.reject_line(path, 1, f"no question of type {YES_NO}; wanted BioASQ's yes/no questions")
    elif isinstance(value, dict) and _has_paragraphs(value):
        rows = list(_squad_rows(value["data"], text))
    elif isinstance(value, dict) and value and all(_is_pubmedqa(record) for record in value.values()):
        rows = [(_line_of(text, key), record) for key, record in value.items()]
    else:
        rows = json_rows.read_rows(path)
    return [(line, _flatten(row)) for line, row in rows]


def _is_pubmedqa(record: Any) -> bool:
    return isinstance(record, dict) and "QUESTION" in record


def _has_paragraphs(value: Mapping[str, Any]) -> bool:
    entries = value.get("data")
    return isinstance(entries, list) and any(isinstance(entry, dict) and "paragraphs" in entry for entry in entries)


def _bioasq_rows(path: str, questions: list[Any], text: str) -> Iterator[tuple[int, Row]]:
    for question in questions:
        if not isinstance(question, dict) or not isinstance(question.get("body"), str):
            split_files.reject_line(path, 1, f"{json.dumps(question)[:60]}; wanted questions with a body")
        if question.get("type") == YES_NO:
            parts = [snippet.get("text", "") for snippet in question.get("snippets", []) if isinstance(snippet, dict)]
            answer = question.get("exact_answer", "")
            answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
            label = answer.strip().lower() if isinstance(answer, str) else answer
            row = {"question": question["body"], "context": _join(parts), "label": label or None}
            yield _line_of(text, str(question.get("id", ""))), row


def _squad_rows(entries: list[Any], text: str) -> Iterator[tuple[int, Row]]:
    for entry in entries:
        for paragraph in entry.get("paragraphs", []):
            for question in paragraph.get("qas", []):
                label = question.get("answers", question.get("label"))
                row = {"question": question.get("question"), "context": paragraph.get("context"), "label": label}
                yield _line_of(text, str(question.get("id", ""))), row


def _flatten(row: Row) -> Row:
    """Returns the row with the names of PubMedQA's columns in lower case, and with text in place of lists of parts."""
    flat = {_PUBMEDQA.get(name, name): value for name, value in row.items()}
    for name, value in flat.items():
        if isinstance(value, dict):
            value = next((value[part] for part in _PARTS if part in value), value)
        is_text = isinstance(value, list) and value and all(isinstance(part, str) for part in value)
        flat[name] = _join(value) if is_text and name == "context" else value
    return flat


def _join(parts: list[str]) -> str:
    return " ".join(part.strip() for part in parts if part.strip())


def _line_of(text: str, key: str) -> int:
    """Returns the line on which a string is first written as JSON."""
    return json_rows.line_of(text, max(0, text.find(json.dumps(key, ensure_ascii=False)[1:-1])))
