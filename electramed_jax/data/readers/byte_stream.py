"""Bytes and lines of an input file: decompressed, in UTF-8, in bounded memory, with damage counted.

Reasons:

- files: `truncated_gzip` and `damaged_gzip`, also with `bzip2`, `xz` and `zstd` (what was decompressed before the
  damage is used), `expands_too_far` (more than `ReadErrors.max_expansion`, a decompression bomb; the rest is not used),
  `html_page` (a web page, often the answer of a server to a download; not used);
- lines: `long_line` (longer than `ReadErrors.max_line_bytes`; skipped);
- kept documents: `repaired_utf8` (bytes that are not UTF-8 were replaced by U+FFFD, which the tokenizer drops),
  `repaired_encoding` (the document was converted from UTF-16, UTF-32 or Windows-1252).

UTF-16 and UTF-32 are recognised by their byte-order mark, or by the NUL bytes of the first characters. Windows-1252,
which includes Latin-1, is recognised line by line: see `decode`.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from electramed_jax.common.storage import decompression, files
from electramed_jax.data.readers import compression
from electramed_jax.data.readers.document import REPAIRED_PREFIX, ReadErrors

_CHUNK_BYTES = 1 << 20
_START_BYTES = 1 << 16
_UTF8, _WINDOWS_1252 = "utf8", "encoding"  # repairs, as counted after REPAIRED_PREFIX
# The longer marks first: that of UTF-32-LE starts with that of UTF-16-LE.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UTF16_STARTS = (
    (re.compile(rb"[\t\n\r -~]\0[\t\n\r -~]\0"), "utf-16-le"),
    (re.compile(rb"\0[\t\n\r -~]\0[\t\n\r -~]"), "utf-16-be"),
)
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.{0,2000}?-->\s*)*(?:<!DOCTYPE\s+html|<html)\b",
    re.IGNORECASE | re.DOTALL,
)


def read_chunks(errors: ReadErrors) -> Iterator[bytes]:
    """Yields the bytes of a file, in UTF-8 and without byte-order mark, up to the first damage.

    The bytes are those of `errors.open()`, decompressed (see `compression`). A file in another encoding than UTF-16 or
    UTF-32 is not converted.
    """
    chunks = _count_bytes(_decompress(errors), errors)
    start = b""
    for chunk in chunks:
        start += chunk
        if len(start) >= _CHUNK_BYTES:
            break
    mark, encoding = detect_encoding(start)
    start = start.removeprefix(mark)
    if _HTML_START.match(start if encoding == "utf-8" else start.decode(encoding, "replace").encode()):
        errors.truncated = True
        errors.report_damaged("html_page", 1, "a web page (HTML), not a data file; download it again")
        return
    if encoding == "utf-8":
        if start:
            yield start
        yield from chunks
        return
    errors.converted = True
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(start).encode()
    for chunk in chunks:
        yield decoder.decode(chunk).encode()
    if not errors.truncated:
        yield decoder.decode(b"", True).encode()


def read_lines(errors: ReadErrors) -> Iterator[tuple[int, str, str]]:
    """Yields (line number, line without its end, repair) of a file; no incomplete last line.

    A repair is "" for a line in UTF-8; the reader passes another one to `report_replaced_bytes` with the document.
    A line of more than `errors.max_line_bytes` is counted as damaged and skipped, in bounded memory.
    """
    number, size = 1, 0
    pieces: list[bytes] = []  # of the line that the last chunk did not end
    for chunk in read_chunks(errors):
        end = chunk.rfind(b"\n")
        if end >= 0 and size + end <= errors.max_line_bytes:  # no line is too long
            block = b"".join((*pieces, chunk[:end]))
            for line in _decode_lines(block, errors):
                yield number, *line
                number += 1
            last = chunk[end + 1 :]
            pieces, size = [last], len(last)
            continue
        first, *others = chunk.split(b"\n")
        size += len(first)
        if size <= errors.max_line_bytes:
            pieces.append(first)
        else:
            pieces.clear()
        if not others:
            continue
        *whole, last = others
        for data, bytes_of_line in ((b"".join(pieces), size), *((line, len(line)) for line in whole)):
            if bytes_of_line > errors.max_line_bytes:
                _report_long_line(errors, number)
            else:
                yield number, *decode(data, errors)
            number += 1
        pieces, size = [last], len(last)
    if errors.truncated:
        return  # the damage before the end of this line is counted
    if size > errors.max_line_bytes:
        _report_long_line(errors, number)
    elif size:
        yield number, *decode(b"".join(pieces), errors)


def _decode_lines(block: bytes, errors: ReadErrors) -> Iterator[tuple[str, str]]:
    """Yields (text, repair) of each line; see `decode`. Lines in UTF-8 are decoded at once."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError:
        for data in block.split(b"\n"):
            yield decode(data, errors)
        return
    errors.has_utf8 = errors.has_utf8 or not text.isascii()
    for line in text.split("\n"):
        yield line, ""


def decode(data: bytes, errors: ReadErrors) -> tuple[str, str]:
    """Returns (text, repair) of bytes that should be UTF-8; the repair is "" if they are.

    Bytes that are not UTF-8 are read as Windows-1252 if nothing contradicts it: the file had no character beyond ASCII
    in UTF-8 so far, all bytes are defined in Windows-1252, and at most half of them are beyond ASCII (other alphabets
    have more). Otherwise they are replaced by U+FFFD.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        replaced = data.decode("utf-8", "replace")
        errors.has_utf8 = errors.has_utf8 or not replaced.replace("\ufffd", "").isascii()
        beyond_ascii = len(data.translate(None, bytes(range(128))))
        if errors.has_utf8 or 2 * beyond_ascii > len(data):
            return replaced, _UTF8
        try:
            return data.decode("windows-1252"), _WINDOWS_1252
        except UnicodeDecodeError:
            return replaced, _UTF8
    errors.has_utf8 = errors.has_utf8 or not text.isascii()
    return text, ""


def report_replaced_bytes(errors: ReadErrors, line: int, repair: str = _UTF8) -> None:
    """Counts a document with a repair of `read_lines` or `decode`.

    Raises:
      UserError: if `errors` is strict.
    """
    errors.report_damaged(f"{REPAIRED_PREFIX}{repair}", line, "bytes that are not UTF-8")


def _decompress(errors: ReadErrors) -> Iterator[bytes]:
    with errors.open() as file:
        if errors.stream is None:
            errors.file_bytes = files.size(errors.path)
        start = file.read(_START_BYTES)
        raw = compression.join(start, file)
        kind = compression.find_kind(start, errors.path)
        if kind and not compression.has_magic(start) and _HTML_START.match(start):
            kind = ""  # a web page under the name of a compressed file
        stream = compression.open_stream(raw, kind)
        # read1 returns the bytes before the damage; read would raise without them.
        read = stream.read1 if kind else stream.read
        expanded = 0
        try:
            while chunk := read(_CHUNK_BYTES):
                errors.file_bytes_read, expanded = raw.tell(), expanded + len(chunk)
                if kind and decompression.expands_too_far(raw.tell(), expanded, errors.max_expansion):
                    errors.truncated = True
                    detail = (
                        f"{raw.tell():,} bytes expand to more than {expanded:,}, over {errors.max_expansion} times as "
                        "many, as in a decompression bomb; if the file is genuine, decompress it first"
                    )
                    errors.report_damaged("expands_too_far", 0, detail)
                    return
                yield chunk
        except EOFError:
            errors.truncated = True
            errors.report_damaged(f"truncated_{kind}", 0, f"{kind} data ends early")
        except compression.DAMAGE as error:
            if not kind:
                raise
            errors.truncated = True
            errors.report_damaged(f"damaged_{kind}", 0, f"{kind} data is damaged ({error})")


def _count_bytes(chunks: Iterator[bytes], errors: ReadErrors) -> Iterator[bytes]:
    for chunk in chunks:
        errors.bytes_read += len(chunk)
        yield chunk


def detect_encoding(start: bytes) -> tuple[bytes, str]:
    """Returns (byte-order mark or b"", encoding) of the first bytes of a file."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return mark, encoding
    for pattern, encoding in _UTF16_STARTS:
        if pattern.match(start):
            return b"", encoding
    return b"", "utf-8"


def _report_long_line(errors: ReadErrors, number: int) -> None:
    limit = errors.max_line_bytes >> 20
    errors.report_damaged("long_line", number, f"longer than {limit} MiB; wanted one document per line")
