"""Plain-text reader: documents separated by blank lines."""

from __future__ import annotations

import os
from collections.abc import Iterator

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import Document, ReadErrors, text_id


def read(errors: ReadErrors, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`."""
    source = os.path.basename(errors.path)
    lines: list[str] = []
    any_replaced, number = False, 0
    for number, line, replaced in byte_stream.read_lines(errors):
        any_replaced |= replaced
        if line.strip():
            lines.append(line)
        elif lines:
            yield _join_lines(lines, any_replaced, number, errors, source)
            lines, any_replaced = [], False
    if lines and not errors.truncated:
        yield _join_lines(lines, any_replaced, number, errors, source)


def _join_lines(lines: list[str], any_replaced: bool, number: int, errors: ReadErrors, source: str) -> Document:
    if any_replaced:
        byte_stream.report_replaced_bytes(errors, number)
    text = "\n".join(lines)
    return Document(text_id(text), None, "", ((None, text),), None, source)
