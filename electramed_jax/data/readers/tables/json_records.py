"""JSON reader: an array of records, one record over several lines, or records in a row; fields as in `record_fields`.

Reasons: those of `json_values`, and `bad_record` (no object, or no text in its fields).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from electramed_jax.data.readers import record_fields
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.tables import json_values


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: no field has text; damage, if `errors` is strict.
    """
    source = os.path.basename(errors.path)
    fields = None
    for number, record in enumerate(json_values.read_values(errors), 1):
        document = None
        if isinstance(record, dict):
            fields = fields or record_fields.find_fields(record, options, errors.path)
            document = record_fields.to_document(record, fields, source)
        if document is None:
            errors.report_damaged("bad_record", 0, f"record {number} is not an object with text")
        else:
            yield document
