"""JSONL reader: one JSON object per line.

Keys: `text` or `sections` ([label or null, text] pairs), and optionally `title`, `id`, `pmid`, `year`, `source`,
`language`, `version`, `revised`. Reasons: `bad_json` (not JSON), `bad_record` (no string `text` and no `sections`).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import Document, ReadErrors, parse_positive_int, text_id


def read(errors: ReadErrors, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`."""
    source = os.path.basename(errors.path)
    for number, line, replaced in byte_stream.read_lines(errors):
        line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        if replaced:
            byte_stream.report_replaced_bytes(errors, number)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            errors.report_damaged("bad_json", number, "not valid JSON")
            continue
        document = _parse_record(record, source)
        if document is None:
            errors.report_damaged("bad_record", number, 'wanted an object with "text", a string')
        else:
            yield document


def _parse_record(record: Any, source: str) -> Document | None:
    if not isinstance(record, dict):
        return None
    sections = record.get("sections")
    if sections is None:
        sections = [[None, record.get("text")]]
    try:
        pairs = tuple((label, text) for label, text in sections)
    except (TypeError, ValueError):
        return None
    if not all(isinstance(text, str) and isinstance(label, str | None) for label, text in pairs):
        return None
    title = record.get("title")
    document = Document(
        id=str(record.get("id") or ""),
        pmid=parse_positive_int(record.get("pmid")),
        title=title if isinstance(title, str) else "",
        sections=pairs,
        year=parse_positive_int(record.get("year")),
        source=str(record.get("source") or source),
        language=language if isinstance(language := record.get("language"), str) and language else None,
        version=parse_positive_int(record.get("version")) or 1,
        revised=parse_positive_int(record.get("revised")),
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))
