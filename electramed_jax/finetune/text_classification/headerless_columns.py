"""Columns of tables without a header, found by their content."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from electramed_jax.common import console
from electramed_jax.common.errors import UserError

_MAX_LABELS = 50  # distinct values of a column of labels
_WORDS = 3.0  # mean number of words from which a column is a text


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns, numbers from 1 without a header; "": to be found by name, or no such column.

    `second` is found by name, too; `document` never is.
    """

    text: str = ""
    second: str = ""
    label: str = ""
    document: str = ""


DEFAULT_COLUMNS = Columns()  # all found by name


def find_columns(path: str, rows: Sequence[Sequence[str]], chosen: Columns, labelled: bool) -> Columns:
    """Returns the columns of a table without a header, as numbers from 1.

    Texts are the columns of several words; of two texts the left one is the first. The label is the only other column
    with few distinct values, or with numbers; if several columns could be the label, the last one is.

    Args:
      rows: cells of each line.
      chosen: columns that the user named; a name that is not a number is in no such table.
      labelled: find the label, too.

    Raises:
      UserError: the texts or the label cannot be found from the content; names the columns.
    """
    width = len(rows[0])
    numbers = [str(column) for column in range(1, width + 1)]
    for name in (chosen.text, chosen.second, chosen.label, chosen.document):
        if name and name not in numbers:
            raise UserError(
                f"{path}, line 1: no column {name} in the first line, and without a header the columns are "
                f"{', '.join(numbers)}; add a header, or choose columns by number"
            )
    cells = {name: [row[index] for row in rows] for index, name in enumerate(numbers)}
    texts = [name for name in numbers if _mean_words(cells[name]) >= _WORDS]
    others = [name for name in numbers if name not in texts and name != chosen.document]
    labels = [name for name in others if _is_label(cells[name], len(rows))]
    text = chosen.text or next((name for name in texts if name != chosen.second), "")
    second = chosen.second or next((name for name in texts if name != text), "")
    label = chosen.label or (labels[-1] if labels else "")
    if not text or len(texts) > 2 or (labelled and not label):
        what = "the text" if not text else "the texts" if len(texts) > 2 else "the label"
        shown = "; ".join(f"{name}: {cells[name][0][:30]!r}" for name in numbers)
        raise UserError(
            f"{path}, line 1: no header, and {what} cannot be derived from the columns ({shown}); add a header with "
            "the names sentence and label, or choose columns by number: --config.text.text_column=2 "
            "--config.text.label_column=3"
        )
    if labelled and _looks_like_header(cells[text], cells[label]):
        raise UserError(
            f"{path}, line 1: {', '.join(rows[0])} looks like a header without a known name; name its columns with "
            "--config.text.text_column=NAME --config.text.label_column=NAME"
        )
    listed = ", ".join(
        f"{what} in column {name}" for what, name in (("text", text), ("second text", second), ("label", label)) if name
    )
    console.say(f"{path}: no header; {listed}")
    return Columns(text, second, label if labelled else "", chosen.document)


def _looks_like_header(texts: Sequence[str], labels: Sequence[str]) -> bool:
    """Returns whether the first line has one word as its text, and a label that no other line has."""
    return len(texts) > 1 and " " not in texts[0].strip() and labels[0] not in labels[1:]


def _mean_words(values: Sequence[str]) -> float:
    return sum(len(value.split()) for value in values) / len(values)


def _is_label(values: Sequence[str], rows: int) -> bool:
    """Returns whether a column may be the label: few distinct values, or numbers that are not those of the lines."""
    distinct = set(values)
    if len(distinct) <= min(_MAX_LABELS, max(2, rows // 2)):
        return True
    try:
        return any(not float(value).is_integer() for value in distinct)
    except ValueError:
        return False
