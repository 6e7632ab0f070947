r"""JSONL reader: one JSON object per line.

Keys: `text` or `sections` ([label or null, text] pairs), and optionally `title`, `id`, `pmid`, `year`, `source`,
`language`, `version`, `revised`, `pmcid`, `doi`, `license`, `kind`, `abstract_sections`. A record without `text` and
`sections` is read by the common names of its fields, or by those in `ReadOptions` (see `record_fields`).

Reasons: `bad_json` (not JSON), `bad_record` (no text).
Half of a surrogate pair ("\ud800"), which UTF-8 cannot represent, becomes U+FFFD.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers import byte_stream, record_fields
from electramed_jax.data.readers.document import (
    ABSTRACT,
    FULL_TEXT,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
    replace_lone_surrogates,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids


def read(errors: ReadErrors, options: ReadOptions = ReadOptions(), *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: a field in `options` does not exist; damage, if `errors` is strict.
    """
    source = os.path.basename(errors.path)
    fields = None
    has_named_fields = bool(options.text_field or options.title_field or options.id_field)
    for number, line, repair in byte_stream.read_lines(errors):
        line = line.removeprefix("\ufeff")  # files that were joined have one in the middle
        if not line.strip():
            continue
        if repair:
            byte_stream.report_replaced_bytes(errors, number, repair)
        try:
            record = json.loads(replace_lone_surrogates(line))
        except (ValueError, RecursionError):
            errors.report_damaged("bad_json", number, "not valid JSON")
            continue
        if isinstance(record, dict) and (has_named_fields or record.keys().isdisjoint(("text", "sections"))):
            if fields is None and (has_named_fields or record_fields.has_text_field(record)):
                fields = record_fields.find_fields(record, options, errors.path)
            document = record_fields.to_document(record, fields, source) if fields else None
        else:
            document = _parse_record(record, source)
        if document is None:
            errors.report_damaged("bad_record", number, 'wanted an object with "text", a string')
        else:
            errors.used_bytes += len(line)
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
    title, language = record.get("title"), record.get("language")
    document = Document(
        id=_to_name(record.get("id")),
        pmid=parse_positive_int(record.get("pmid")),
        title=title if isinstance(title, str) else "",
        sections=pairs,
        year=parse_positive_int(record.get("year")),
        source=_to_name(record.get("source")) or source,
        language=language if isinstance(language, str) and language else None,
        version=parse_positive_int(record.get("version")) or 1,
        revised=parse_positive_int(record.get("revised")),
        pmcid=article_ids.normalize_pmcid(record_fields.field_text(record.get("pmcid"))),
        doi=article_ids.normalize_doi(record_fields.field_text(record.get("doi"))),
        license=record_fields.field_text(record.get("license")),
        kind=kind if (kind := record.get("kind")) in (ABSTRACT, FULL_TEXT) else "",
        abstract_sections=parse_positive_int(record.get("abstract_sections")) or 0,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _to_name(value: Any) -> str:
    """Returns a string or number as text; "" for anything else."""
    return str(value) if value and isinstance(value, str | int | float) else ""
