"""Parquet and Arrow reader: a document a row, read in batches; fields as in `record_fields`.

Parquet files, and Arrow files in both forms (file and stream, as Hugging Face `datasets` writes them).

Reasons: `no_text` (an empty text), `damaged_table` (the rest of the file is not used).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from electramed_jax.common.storage import files
from electramed_jax.data.readers import record_fields
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions

PARQUET_MAGIC, ARROW_MAGIC, STREAM_MAGIC = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"

_BATCH_ROWS = 256
_MAX_MEMBER_BYTES = 1 << 30  # a table in an archive is read into memory, because its end is read first


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: no column has text; damage, if `errors` is strict.
    """
    yield from read_rows(errors, options, os.path.basename(errors.path))


def read_rows(
    errors: ReadErrors, options: ReadOptions, source: str, first: int = 0, end: int | None = None
) -> Iterator[Document]:
    """Yields the documents of rows [first, end) of a file; see `read`."""
    import pyarrow as pa

    fields = None
    number = 0
    try:
        for batch in _batches(errors, options):
            if fields is None:
                fields = record_fields.find_fields(batch.schema.names, options, errors.path)
            wanted = batch.select(fields.names)
            for record in wanted.to_pylist():
                number += 1
                if number <= first or (end is not None and number > end):
                    continue
                document = record_fields.to_document(record, fields, source)
                if document is None:
                    errors.count_dropped("no_text")
                else:
                    yield document
            if end is not None and number >= end:
                return
    except (pa.ArrowException, OSError, EOFError) as error:
        errors.truncated = True
        errors.report_damaged("damaged_table", 0, f"damaged after row {number:,} ({str(error).splitlines()[0][:200]})")


def _batches(errors: ReadErrors, options: ReadOptions) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    with _open(errors) as file:
        magic = file.read(len(ARROW_MAGIC))
        file.seek(0)
        if magic.startswith(PARQUET_MAGIC):
            table = parquet.ParquetFile(file)
            # Only the columns with the parts of a document are decoded.
            columns = record_fields.find_fields(table.schema_arrow.names, options, errors.path).names
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                yield from _small_batches(batch)
        elif magic == ARROW_MAGIC:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield from _small_batches(reader.get_batch(number))
        else:
            for batch in pa.ipc.open_stream(file):
                yield from _small_batches(batch)


def _small_batches(batch: Any) -> Iterator[Any]:
    batch.validate(full=True)  # offsets of a damaged file would make pyarrow read outside of its buffers
    return (batch.slice(first, _BATCH_ROWS) for first in range(0, batch.num_rows, _BATCH_ROWS))


def _open(errors: ReadErrors) -> Any:
    if errors.stream is None:
        return _SizedFile(files.open_read(errors.path), files.size(errors.path))
    data = errors.stream.read(_MAX_MEMBER_BYTES + 1)
    if len(data) > _MAX_MEMBER_BYTES:
        raise EOFError(f"larger than {_MAX_MEMBER_BYTES >> 20} MiB in an archive; unpack the archive")
    return io.BytesIO(data)


class _SizedFile(io.RawIOBase):
    """Reads a file and never more bytes than it has: a damaged table names any number, and Python would allocate it."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def close(self) -> None:
        self._file.close()
        super().close()
