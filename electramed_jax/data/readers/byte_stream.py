"""Bytes and lines of an input file, decompressed, with damage counted.

Reasons: `truncated_gzip` and `damaged_gzip`. What was decompressed before the damage is used. Bytes that are not UTF-8
are replaced by U+FFFD, which the tokenizer drops; the reader counts the document as `repaired_utf8`.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator

from electramed_jax.common.storage import files
from electramed_jax.data.readers.document import REPAIRED_PREFIX, ReadErrors

_CHUNK_BYTES = 1 << 20


def read_chunks(errors: ReadErrors) -> Iterator[bytes]:
    """Yields the bytes of a file, decompressed if its name ends in .gz, up to the first damage."""
    with files.open_read(errors.path) as raw:
        if not errors.path.lower().endswith(".gz"):
            while chunk := raw.read(_CHUNK_BYTES):
                yield chunk
            return
        stream = gzip.GzipFile(fileobj=raw)
        try:
            # read1 returns the bytes before the damage; read would raise without them.
            while chunk := stream.read1(_CHUNK_BYTES):
                yield chunk
        except EOFError:
            errors.truncated = True
            errors.report_damaged("truncated_gzip", 0, "gzip data ends early")
        except (gzip.BadGzipFile, zlib.error) as error:
            errors.truncated = True
            errors.report_damaged("damaged_gzip", 0, f"gzip data is damaged ({error})")


def read_lines(errors: ReadErrors) -> Iterator[tuple[int, str, bool]]:
    """Yields (line number, line without its end, whether bytes were replaced); no incomplete last line."""
    number, rest = 0, b""
    for chunk in read_chunks(errors):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, *_decode(line)
    if rest and not errors.truncated:
        yield number + 1, *_decode(rest)


def report_replaced_bytes(errors: ReadErrors, line: int) -> None:
    """Counts a document in which `read_lines` replaced bytes.

    Raises:
      UserError: if `errors` is strict.
    """
    errors.report_damaged(f"{REPAIRED_PREFIX}utf8", line, "bytes that are not UTF-8")


def _decode(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode("utf-8"), False
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), True
