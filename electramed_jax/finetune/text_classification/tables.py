"""Labelled texts: tables with a header, or JSON lines.

The relations of BLUE are tab-separated tables without quoting, whatever their file ending. A file without a tab in its
header is read as comma-separated, with quoting. Columns are found by name: the first of `TEXT`, `SECOND` and `LABEL`
that the file has.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from electramed_jax.finetune.task import split_files

ENDINGS = ("tsv", "csv", "jsonl")
TEXT = ("sentence", "text", "sentence1", "text_a", "premise", "question")
SECOND = ("sentence2", "text_b", "hypothesis", "context")
LABEL = ("label", "labels", "score", "similarity", "final_decision")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of columns; "": to be found by name, or no column for `second`."""

    text: str = ""
    second: str = ""
    label: str = ""


DEFAULT_COLUMNS = Columns()  # all found by name


@dataclasses.dataclass(frozen=True)
class Record:
    """A text, an optional second text ("" without one), the label as in the file, and the line (from 1)."""

    text: str
    second: str
    label: Any  # str; from JSON also a number or a list of str
    line: int


def read_table(path: str, columns: Columns = DEFAULT_COLUMNS, *, labelled: bool = True) -> tuple[list[Record], Columns]:
    """Reads the records of a file; returns them with the columns used.

    Args:
      labelled: read the labels; False: ignore them.

    Raises:
      UserError: the file is empty, a column is missing in the header or in a line, or a line is not a JSON object;
        names file and line.
    """
    rows = _json_rows(path) if path.endswith(".jsonl") else _table_rows(path)
    records: list[Record] = []
    used = None
    for line, row in rows:
        used = used or _find_columns(path, line, row, columns, labelled)
        for name in (used.text, used.second, used.label):
            if name and row.get(name) is None:
                split_files.reject_line(path, line, f"no {name}; wanted one in every record")
        text, second = row[used.text], row[used.second] if used.second else ""
        for name, value in ((used.text, text), (used.second, second)):
            if not isinstance(value, str) or (name and not value.strip()):
                split_files.reject_line(path, line, f"{name} is {value!r}; wanted a text")
        records.append(Record(text.strip(), second.strip(), row[used.label] if used.label else "", line))
    if used is None:
        split_files.reject_line(path, 1, "only a header; wanted one record per line")
    return records, used


def _table_rows(path: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = split_files.read_lines(path)
    if lines[0].startswith(("{", "[{")):
        split_files.reject_line(
            path, 1, "JSON; wanted a table with a header, or a .jsonl file with one object per line"
        )
    tabs = "\t" in lines[0]
    header = [name.strip() for name in (lines[0].split("\t") if tabs else next(csv.reader(lines[:1])))]
    if tabs:
        cells = ((number, line.split("\t")) for number, line in enumerate(lines[1:], 2))
    else:
        reader = csv.reader(lines[1:])
        cells = ((reader.line_num + 1, row) for row in reader)
    for number, row in cells:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            split_files.reject_line(
                path, number, f"{len(row)} columns; the header has {len(header)}: {', '.join(header)}"
            )
        yield number, dict(zip(header, row, strict=True))


def _json_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(split_files.read_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            split_files.reject_line(path, number, f"not JSON ({error.msg} at column {error.colno})")
        if not isinstance(row, dict):
            split_files.reject_line(path, number, "not a JSON object; wanted one with a text and a label")
        yield number, row


def _find_columns(path: str, line: int, row: Mapping[str, Any], columns: Columns, labelled: bool) -> Columns:
    """Returns the columns to read; raises UserError if a chosen or a required column is missing."""
    setting = "config.text." if labelled else ""  # an option of finetune, or of predict

    def choose(option: str, chosen: str, candidates: Sequence[str], required: bool) -> str:
        names = [chosen] if chosen else [name for name in candidates if name in row]
        if names and names[0] in row:
            return names[0]
        if required or chosen:
            wanted = chosen or f"one of {', '.join(candidates)}"
            split_files.reject_line(
                path, line, f"no column {wanted}; got {', '.join(row)}; name yours with --{setting}{option}_column=NAME"
            )
        return ""

    text = choose("text", columns.text, TEXT, True)
    second = choose("second_text", columns.second, [name for name in SECOND if name != text], False)
    return Columns(text, second, choose("label", columns.label, LABEL, True) if labelled else "")
