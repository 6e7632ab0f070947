"""Plain-text reader: documents separated by blank lines.

A document of more than `ReadErrors.max_line_bytes`, such as a file with one document per line and no blank line, is
divided at a line end; its parts are counted as `repaired_long_text`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import REPAIRED_PREFIX, Document, ReadErrors, text_id


def read(errors: ReadErrors, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`."""
    source = os.path.basename(errors.path)
    lines: list[str] = []
    size, any_repair, number = 0, "", 0
    for number, line, repair in byte_stream.read_lines(errors):
        is_too_long = size + len(line) > errors.max_line_bytes
        if lines and (is_too_long or not line.strip()):
            if is_too_long:
                errors.report_damaged(
                    f"{REPAIRED_PREFIX}long_text",
                    number,
                    f"no blank line in {size:,} characters; wanted one after each document",
                )
            yield _join_lines(lines, any_repair, number, errors, source)
            lines, size, any_repair = [], 0, ""
        if line.strip():
            lines.append(line)
            size += len(line) + 1
            any_repair = any_repair or repair
    if lines and not errors.truncated:
        yield _join_lines(lines, any_repair, number, errors, source)


def _join_lines(lines: list[str], repair: str, number: int, errors: ReadErrors, source: str) -> Document:
    if repair:
        byte_stream.report_replaced_bytes(errors, number, repair)
    text = "\n".join(lines)
    return Document(text_id(text), None, "", ((None, text),), None, source)
