"""Output formats of labelled texts: JSON lines, CSV, HTML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from electramed_jax.common.rounding import round_floats
from electramed_jax.finetune.output import entity_tables, view
from electramed_jax.finetune.task.task import SQUARED, Head
from electramed_jax.finetune.text_classification.tables import Record

FORMATS = ("jsonl", "csv", "html")
ID_COLUMNS = ("file", "line", "id", "pmid")
# Identification of a text ("id" of a document, "line" of a table, ...), the text, and its prediction.
Labelled = tuple[dict[str, Any], Record, dict[str, Any]]


def get_writer(form: str) -> Callable[[Iterable[Labelled], Head, str], Iterator[str]]:
    """Returns the writer of one of `FORMATS`: (labelled texts, head, name of the model) -> pieces of text."""
    return {"jsonl": _jsonl, "csv": _csv, "html": _html}[form]


def _jsonl(labelled: Iterable[Labelled], _head: Head, _model: str) -> Iterator[str]:
    for identification, _, prediction in labelled:
        yield json.dumps(identification | round_floats(prediction), ensure_ascii=False) + "\n"


def _csv(labelled: Iterable[Labelled], head: Head, _model: str) -> Iterator[str]:
    """Yields a row for each text: its identification, label or score, and the probability of each label."""
    names = () if head.loss == SQUARED else head.labels
    result = "score" if head.loss == SQUARED else "label"
    yield entity_tables.csv_line((*ID_COLUMNS, result, *(f"probability of {name}" for name in names)))
    for identification, _, prediction in labelled:
        value = prediction.get(result, "|".join(prediction.get("labels", ())))
        probabilities = (f"{prediction['probabilities'][name]:.6f}" for name in names)
        row = (*(identification.get(column, "") for column in ID_COLUMNS), round_floats(value), *probabilities)
        yield entity_tables.csv_line(row)


def _html(labelled: Iterable[Labelled], _head: Head, model: str) -> Iterator[str]:
    yield view.page_start("Predicted labels")
    yield view.note(f"Model: {model}")
    for identification, record, prediction in labelled:
        title = ", ".join(f"{name} {value}" for name, value in identification.items())
        texts = [view.entities(text, (), ()) for text in (record.text, record.second) if text]
        yield view.card(title, [*texts, view.labels(prediction)])
    yield view.page_end()
