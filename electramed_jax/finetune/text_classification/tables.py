"""Labelled texts: tables with a header, or a JSON object a line.

BLUE's relations are tables separated by tabs, whatever their ending says, in which a quotation mark is a character like
any other. A file without a tab in its header is taken for comma-separated, with quoting. Columns are known by their
names, the first of the usual ones that is there.
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
    """Names of columns; "" for those that are to be found, and, of `second`, for none."""

    text: str = ""
    second: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Record:
    """A text, perhaps a second one, the label as it stands in the file, and the line (from 1)."""

    text: str
    second: str
    label: Any  # str; of JSON also a number or a list of str
    line: int


def read_table(path: str, columns: Columns = Columns(), *, labelled: bool = True) -> tuple[list[Record], Columns]:
    """The records of a file, and the columns they were taken from.

    Args:
      labelled: whether labels are wanted; else there are none, and a column of them is passed over.

    Raises:
      UserError: empty, a column that is missing from the header or a line, or a line that is no JSON object; names file
        and line.
    """
    rows = _json_rows(path) if path.endswith(".jsonl") else _table_rows(path)
    records: list[Record] = []
    found = None
    for line, row in rows:
        found = found or _found(path, line, row, columns, labelled)
        for name in (found.text, found.second, found.label):
            if name and row.get(name) is None:
                split_files.reject_line(path, line, f"no {name}; wanted one in every record")
        text, second = row[found.text], row[found.second] if found.second else ""
        for name, value in ((found.text, text), (found.second, second)):
            if not isinstance(value, str) or (name and not value.strip()):
                split_files.reject_line(path, line, f"{name} is {value!r}; wanted a text")
        records.append(Record(text.strip(), second.strip(), row[found.label] if found.label else "", line))
    if found is None:
        split_files.reject_line(path, 1, "a header and nothing else; wanted a record a line")
    return records, found


def _table_rows(path: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    lines = split_files.read_lines(path)
    if lines[0].startswith(("{", "[{")):
        split_files.reject_line(path, 1, "JSON; wanted a table with a header, or a file .jsonl with an object a line")
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


def _found(path: str, line: int, row: Mapping[str, Any], columns: Columns, labelled: bool) -> Columns:
    there = ", ".join(row)
    setting = "config.text." if labelled else ""  # of finetune, of predict

    def choose(what: str, chosen: str, usual: Sequence[str], needed: bool) -> str:
        names = [chosen] if chosen else [name for name in usual if name in row]
        if names and names[0] in row:
            return names[0]
        if not needed and not chosen:
            return ""
        wanted = chosen or f"one of {', '.join(usual)}"
        split_files.reject_line(
            path, line, f"no column {wanted}; there are {there}; name yours with --{setting}{what}_column=NAME"
        )

    text = choose("text", columns.text, TEXT, True)
    second = choose("second_text", columns.second, [name for name in SECOND if name != text], False)
    return Columns(text, second, choose("label", columns.label, LABEL, True) if labelled else "")
