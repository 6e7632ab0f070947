"""Splits the bytes of a PubMed file into records before XML parsing.

A malformed record therefore affects only itself, memory is bounded by one record, and no DTD reaches the parser:
entities cannot be defined, fetched or expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from electramed_jax.data.readers.document import ReadErrors

MAX_RECORD_BYTES = 64 << 20  # of one record, or of the text before the first; the search for its end stops there

_KINDS = (b"PubmedArticle", b"PubmedBookArticle", b"MedlineCitation", b"DeleteCitation", b"DeleteDocument")
_START = rb"<(" + rb"|".join(_KINDS) + rb")(?=[\s>])"
# The end tag of a record, or the start tag of the next record if the end tag is missing.
_BORDERS = {kind: re.compile(rb"</" + kind + rb"\s*>|<" + kind + rb"(?=[\s>])") for kind in _KINDS}
_COMMENT_START, _COMMENT_END = b"<!--", re.compile(rb"-->")
_OVERLAP = 64  # bytes, longer than any tag: finds a tag that is split over two chunks
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)")


def split_records(chunks: Iterator[bytes], errors: ReadErrors) -> Iterator[tuple[bytes, int]]:
    """Yields (bytes of one record in UTF-8, number of its first line).

    A record is a PubmedArticle, PubmedBookArticle, DeleteCitation, DeleteDocument, or a MedlineCitation outside of
    these. Records in comments are skipped.

    Args:
      chunks: the bytes of the file.
      errors: damage is reported here.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    scanner = _Scanner(chunks)
    start = scanner.search_outside_comments(_START)
    prolog = scanner.data[: start.start()] if start else scanner.data
    if b"<!ENTITY" in prolog:
        errors.report_damaged("entity_declaration", 1, "declares entities, which are not accepted")
        return
    if start is None:
        if not errors.truncated:
            errors.report_damaged("not_pubmed_xml", 1, "contains no PubMed record")
        return
    encoding, root = _encoding(prolog), _root_name(prolog)
    start_or_close = _START + rb"|</" + root + rb"\s*>" if root else _START
    closed = root is None
    while start is not None:
        scanner.move_to(start.start())
        if start[1] is None:
            closed = True
            scanner.move_to(start.end())
        else:
            closed = root is None
            border = scanner.search(_BORDERS[start[1]], len(start[0]))
            if border is not None and border[0].startswith(b"</"):
                yield _to_utf8(scanner.data[scanner.position : border.end()], encoding), scanner.line
                scanner.move_to(border.end())
            elif border is not None:
                errors.report_damaged("malformed_xml", scanner.line, "record without an end tag")
                scanner.move_to(border.start())
            else:
                break
        start = scanner.search_outside_comments(start_or_close)
    if not (closed and start is None) and not errors.truncated:
        errors.report_damaged("truncated_xml", scanner.line, "file ends before its records do")


class _Scanner:
    """Searches a stream of bytes and reads more of it as needed.

    Attributes:
      data: the bytes in memory.
      position: index in `data`.
      line: line number of `position`.
      exhausted: whether the stream has ended.
    """

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks
        self.data, self.position, self.line, self.exhausted = b"", 0, 1, False

    def search(self, pattern: re.Pattern[bytes], skip: int = 0) -> re.Match[bytes] | None:
        """Returns the first match at least `skip` bytes after `position`; None at the end or past MAX_RECORD_BYTES."""
        while True:
            if match := pattern.search(self.data, self.position + skip):
                return match
            skip = max(skip, len(self.data) - self.position - _OVERLAP)
            if self.exhausted or len(self.data) - self.position > MAX_RECORD_BYTES:
                return None
            chunk = next(self._chunks, b"")
            self.exhausted = not chunk
            self.data, self.position = self.data[self.position :] + chunk, 0

    def search_outside_comments(self, pattern: bytes) -> re.Match[bytes] | None:
        """Returns the first match outside comments; None also if a comment has no end."""
        either, skip = re.compile(pattern + rb"|" + _COMMENT_START), 0
        while (match := self.search(either, skip)) and match[0] == _COMMENT_START:
            end = self.search(_COMMENT_END, match.end() - self.position)
            if end is None:
                return None
            skip = end.end() - self.position
        return match

    def move_to(self, position: int) -> None:
        """Moves to an index in `data` and counts the lines on the way."""
        self.line += self.data.count(b"\n", self.position, position)
        self.position = position


def _encoding(prolog: bytes) -> str:
    match = _ENCODING.search(prolog)
    name = match[1].decode("ascii").lower() if match else "utf-8"
    return "utf-8" if name in ("utf8", "us-ascii", "ascii") else name


def _root_name(prolog: bytes) -> bytes | None:
    """Returns the escaped name of the root element; None if there is none before the first record."""
    match = _ROOT.search(_COMMENT.sub(b"", prolog))
    return re.escape(match[1]) if match else None


def _to_utf8(data: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        return data
    try:
        return data.decode(encoding, "replace").encode("utf-8")
    except LookupError:  # unknown to Python: the parser decides
        return data
