"""Labelled texts: tables, JSON, and folders of the Hallmarks of Cancer corpus.

The relations of BLUE are tab-separated tables without quoting, whatever their file ending. A file without a tab in its
first line is read as comma-separated, with quoting. Columns are found by name: the first of `TEXT`, `SECOND` and
`LABEL` that the file has.

The first line is a header if it has one of these names, or a name that the user gave. If not, every line is a record,
the columns are called 1, 2, 3, ..., and texts and label are found by their content: see `headerless_columns`.

A list of zeros and ones, [0, 1, 0], in JSON or as text, means the labels at the places of the ones: here "1".
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.json_values import shorten
from electramed_jax.data.readers.document import MAX_LINE_BYTES
from electramed_jax.finetune.task import json_rows, split_files
from electramed_jax.finetune.text_classification import headerless_columns, hoc_folders, json_records
from electramed_jax.finetune.text_classification.headerless_columns import DEFAULT_COLUMNS, Columns

ENDINGS = ("tsv", "csv", *json_rows.ENDINGS)
TEXT = ("sentence", "text", "sentence1", "text_a", "premise", "question")
SECOND = ("sentence2", "text_b", "hypothesis", "context")
LABEL = ("label", "labels", "score", "similarity", "final_decision", "gold_label")
_ZEROS_AND_ONES = re.compile(r"\[\s*[01](?:[\s,]+[01])*\s*\]")


@dataclasses.dataclass(frozen=True)
class Record:
    """A text, an optional second text ("" without one), the label as in the file, the line (from 1), and the document.

    `document` is the id of the document that the text is a sentence of; "" without a column of it.
    """

    text: str
    second: str
    label: Any  # str; from JSON also a number or a list of str
    line: int
    document: str = ""


def read_table(path: str, columns: Columns = DEFAULT_COLUMNS, *, labelled: bool = True) -> tuple[list[Record], Columns]:
    """Reads the records of a file; returns them with the columns used.

    Args:
      labelled: read the labels; False: ignore them.

    Raises:
      UserError: the file is empty, a column is missing in the header or in a line, or a line is not a JSON object;
        names file and line.
    """
    rows, columns = _read_rows(path, columns, labelled)
    records: list[Record] = []
    used = None
    for line, row in rows:
        used = used or _find_columns(path, line, row, columns, labelled)
        for name in (used.text, used.second, used.label, used.document):
            if name and row.get(name) is None:
                split_files.reject_line(path, line, f"no {name}; wanted one in every record")
        text, second = row[used.text], row[used.second] if used.second else ""
        for name, value in ((used.text, text), (used.second, second)):
            if not isinstance(value, str) or (name and not value.strip()):
                split_files.reject_line(path, line, f"{name} is {shorten(value)}; wanted a text")
        label = _expand_label(row[used.label]) if used.label else ""
        document = _document_id(row[used.document]) if used.document else ""
        records.append(Record(text.strip(), second.strip(), label, line, document))
    if used is None:
        split_files.reject_line(path, 1, "only a header; wanted one record per line")
    return records, used


def _read_rows(path: str, columns: Columns, labelled: bool) -> tuple[Iterable[tuple[int, Mapping[str, Any]]], Columns]:
    """Returns (line from 1, row) of each record, and the columns, which are numbers in a table without a header."""
    if files.is_dir(path):
        if not hoc_folders.is_folder(path):
            raise UserError(
                f"{path}: a folder; wanted a file, or a folder with {hoc_folders.TEXTS}/ and {hoc_folders.LABELS}/"
            )
        return hoc_folders.read_rows(path), columns
    if path.lower().endswith(tuple(f".{ending}" for ending in json_rows.ENDINGS)):
        return json_records.read_rows(path), columns
    return _table_rows(path, columns, labelled)


def _table_rows(path: str, columns: Columns, labelled: bool) -> tuple[list[tuple[int, Mapping[str, str]]], Columns]:
    lines = split_files.read_lines(path)
    if lines[0].startswith(("{", "[{")):
        split_files.reject_line(
            path, 1, f"JSON; wanted a table, or JSON in a file that ends in .{', .'.join(json_rows.ENDINGS)}"
        )
    rows = _split_cells(path, lines)
    first_line, header = rows[0]
    header = [name.strip() for name in header]
    known = {*TEXT, *SECOND, *LABEL, columns.text, columns.second, columns.label, columns.document} - {""}
    has_header = bool({name.lower() for name in known} & {name.lower() for name in header})
    for number, row in rows:
        if len(row) != len(header):
            names = f": {', '.join(header)}" if has_header else ""
            where = "the header" if has_header else f"line {first_line}"
            split_files.reject_line(path, number, f"{len(row)} columns; {where} has {len(header)}{names}")
    if has_header:
        return [(number, dict(zip(header, row, strict=True))) for number, row in rows[1:]], columns
    chosen = headerless_columns.find_columns(path, [row for _, row in rows], columns, labelled)
    numbers = [str(column) for column in range(1, len(header) + 1)]
    return [(number, dict(zip(numbers, row, strict=True))) for number, row in rows], chosen


def _split_cells(path: str, lines: list[str]) -> list[tuple[int, list[str]]]:
    """Returns (line from 1, cells) of each line that is not empty."""
    if "\t" in lines[0]:
        rows = [(number, line.split("\t")) for number, line in enumerate(lines, 1)]
    else:
        csv.field_size_limit(MAX_LINE_BYTES)  # the default, 128 KiB, is less than a long text
        reader, rows, line = csv.reader(f"{line}\n" for line in lines), [], 1
        try:
            for row in reader:  # a quoted cell may have several lines
                rows.append((line, row))
                line = reader.line_num + 1
        except csv.Error as error:
            split_files.reject_line(path, line, f"{error}; look for a quotation mark without an end")
    return [(number, row) for number, row in rows if any(cell.strip() for cell in row)]


def _expand_label(value: Any) -> Any:
    """Returns a list of the places of the ones, as names, for a list of zeros and ones; other labels unchanged."""
    if isinstance(value, str) and _ZEROS_AND_ONES.fullmatch(value.strip()):
        value = [int(digit) for digit in re.findall("[01]", value)]
    if isinstance(value, list) and value and all(type(entry) in (int, bool) and entry in (0, 1) for entry in value):
        return [str(place) for place, entry in enumerate(value) if entry]
    return value


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
    label = choose("label", columns.label, LABEL, True) if labelled else ""
    return Columns(text, second, label, choose("document", columns.document, (), False) if labelled else "")


def _document_id(value: Any) -> str:
    """Returns the part of an id before its first underscore: "10022882" of "10022882_s1", as in BLUE and BLURB."""
    return str(value).partition("_")[0].strip()
