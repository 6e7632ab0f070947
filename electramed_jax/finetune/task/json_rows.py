"""Objects of a JSON file, with the line of each: JSON lines, a list, or {"data": [...]} as `datasets` writes it.

The ending does not distinguish these: `.json` files of LinkBERT and of Hugging Face's `datasets` are JSON lines.
"""

from __future__ import annotations

import json
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import decompression
from electramed_jax.common.storage.json_values import parse_json
from electramed_jax.data.readers.document import replace_lone_surrogates
from electramed_jax.finetune.task import split_files

ENDINGS = ("json", "jsonl", "json.gz", "jsonl.gz")
_BETWEEN = " \t\r\n,"
_ROWS_KEY = "data"
Row = dict[str, Any]


def read_value(path: str) -> tuple[Any, str]:
    """Returns the JSON value of a file, plain or gzip, and its text; a list of values if it has one per line.

    Raises:
      UserError: the file is empty or not JSON; names the line.
    """
    text = _read_text(path)
    if _has_a_value_per_line(text):
        return [value for _, value in _read_lines(path, text)], text
    return parse_json(text, path, finite=False), text


def read_rows(path: str) -> list[tuple[int, Row]]:
    """Returns (line from 1, object) of each row.

    Raises:
      UserError: the file is empty or not JSON, or a row is not an object; names the line.
    """
    value, text = read_value(path)
    if isinstance(value, dict):
        if not isinstance(value.get(_ROWS_KEY), list):
            rows = [(1, value)] if "\n" not in text.strip() else []
            if not rows:
                split_files.reject_line(
                    path, 1, f"an object with {', '.join(list(value)[:4])}, ...; wanted rows: one object per line, a "
                    f"list of objects, or {{{_ROWS_KEY!r}: [...]}}"
                )  # fmt: skip
            return rows
        start = text.index("[", text.index(f'"{_ROWS_KEY}"'))
        return _check_rows(path, _with_lines(text, start + 1, value[_ROWS_KEY]))
    if text.lstrip().startswith("["):
        return _check_rows(path, _with_lines(text, text.index("[") + 1, value))
    return _check_rows(path, _read_lines(path, text))


def line_of(text: str, position: int) -> int:
    """Returns the line, from 1, of a character of a file."""
    return text.count("\n", 0, position) + 1


def _read_text(path: str) -> str:
    data = decompression.read_whole(path)
    try:
        text = replace_lone_surrogates(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if not text.strip():
        raise UserError(f"{path}: empty; copy or download it again")
    return text


def _has_a_value_per_line(text: str) -> bool:
    first, _, others = text.strip().partition("\n")
    if not first.startswith("{") or not others.strip():
        return False
    try:
        json.JSONDecoder().decode(first)
    except (RecursionError, ValueError):
        return first.rstrip().endswith("}")  # a damaged line; an object over several lines does not end on its first
    return True


def _read_lines(path: str, text: str) -> list[tuple[int, Any]]:
    lines = enumerate(text.split("\n"), 1)
    return [(number, parse_json(line, path, line=number, finite=False)) for number, line in lines if line.strip()]


def _with_lines(text: str, start: int, values: list[Any]) -> list[tuple[int, Any]]:
    """Returns the values of a list with the line on which each begins; `start` is after the list's bracket."""
    decoder, place, line, counted = json.JSONDecoder(), start, line_of(text, start), start
    rows = []
    for value in values:
        while text[place] in _BETWEEN:
            place += 1
        line, counted = line + text.count("\n", counted, place), place
        rows.append((line, value))
        place = decoder.raw_decode(text, place)[1]
    return rows


def _check_rows(path: str, rows: list[tuple[int, Any]]) -> list[tuple[int, Row]]:
    for line, row in rows:
        if not isinstance(row, dict):
            split_files.reject_line(path, line, f"{json.dumps(row)[:40]}; wanted an object")
    if not rows:
        raise UserError(f"{path}: no rows in it; copy or download it again")
    return rows
