"""CSV and TSV reader: a header line, then a document a row; fields as in `record_fields`.

The separator is the tab, comma, semicolon or bar that occurs most in the header. A quoted field may contain line ends.

Reasons: `bad_row` (more or fewer fields than the header, or a quotation without an end), `no_text` (an empty text).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import Literal

from electramed_jax.data.readers import byte_stream, record_fields
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions

_MAX_FIELD = 16 << 20  # characters


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: no column has text; damage, if `errors` is strict.
    """
    csv.field_size_limit(_MAX_FIELD)
    source = os.path.basename(errors.path)
    lines = _Lines(errors)
    header_line = next(lines, "")
    separator = record_fields.find_separator(header_line)
    rows = _rows(lines, separator, errors)
    header = next(csv.reader([header_line], delimiter=separator), [])
    if not header:
        return
    fields = record_fields.find_fields(header, options, errors.path)
    for row, line in rows:
        if not row:
            continue
        if len(row) != len(header):
            errors.report_damaged("bad_row", line, f"{len(row)} fields; the header has {len(header)}")
            continue
        document = record_fields.to_document(dict(zip(header, row, strict=True)), fields, source)
        if document is None:
            errors.count_dropped("no_text")
            continue
        if lines.repair:
            byte_stream.report_replaced_bytes(errors, line, lines.repair)
            lines.repair = ""
        yield document


def _rows(lines: _Lines, separator: str, errors: ReadErrors) -> Iterator[tuple[list[str], int]]:
    """Yields (row, number of its last line); continues after a row that cannot be read."""
    # Many tables of this form have single quotation marks in their text, but tab-separated ones never quote line ends.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if separator == "\t" and not lines.quoted else csv.QUOTE_MINIMAL
    while True:
        try:
            for row in csv.reader(lines, delimiter=separator, quoting=quoting):
                yield row, lines.number
            return
        except csv.Error as error:
            errors.report_damaged("bad_row", lines.number, f"cannot be read ({error})")


class _Lines:
    """Iterates over the lines of a file with their line ends.

    Attributes:
      number: of the last line.
      repair: repair of bytes that were not UTF-8, since it was last cleared.
      quoted: whether the first line that was read contains a quotation mark.
    """

    def __init__(self, errors: ReadErrors):
        self._lines = byte_stream.read_lines(errors)
        self.number, self.repair, self.quoted = 0, "", False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line, replaced = next(self._lines)
        if not self.number:
            line = line.removeprefix("\ufeff")
            self.quoted = '"' in line
        self.number = number
        self.repair = replaced or self.repair
        # The csv module accepts neither NUL nor a carriage return inside a line.
        return line.rstrip("\r").replace("\0", "").replace("\r", " ") + "\n"
