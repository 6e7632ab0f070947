"""Splits the bytes of a PubMed file into records before XML parsing.

A malformed record therefore affects only itself, memory is bounded by one record, and no DTD reaches the parser:
entities cannot be defined, fetched or expanded. Comments and CDATA sections may contain the tags of records.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import re
from collections.abc import Iterator

from electramed_jax.data.readers.document import REPAIRED_PREFIX, ReadErrors

_OPAQUE = {b"<!--": b"-->", b"<![CDATA[": b"]]>"}  # starts and ends of sections without tags
_OPAQUE_START = rb"|<!--|<!\[CDATA\["
_OVERLAP = 64  # bytes, longer than any tag: finds a tag that is split over two chunks
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([^\"'<>]*)")
_UTF8_NAMES = {"utf-8", "ascii"}  # as Python normalizes them
_UNICODE_NAMES = re.compile(r"utf[-_]?(16|32)|ucs|iso[-_]10646", re.IGNORECASE)
# Python's names of encodings in which the markup of XML is the same bytes as in ASCII.
_EIGHT_BIT_NAMES = re.compile(r"iso8859|cp\d|koi8|mac-|gb|big5|euc_|shift_jis|johab|tis-620|kz1048|ptcp154|hp-roman8")
_MARKUP = bytes(byte for byte in range(0x20, 0x7F) if chr(byte) not in "\\~")  # Shift-JIS has ¥ and ‾ there
_LATIN_1, _WINDOWS_1252 = "iso8859-1", "windows-1252"


@dataclasses.dataclass(frozen=True)
class RecordTags:
    """Names of the elements that are records of a format, and how a file without any is counted.

    Attributes:
      names: of the elements; none may contain another of the same name.
      reason: count of a file without a record.
      detail: description of such a file.
    """

    names: tuple[bytes, ...]
    reason: str
    detail: str

    @property
    def start(self) -> bytes:
        """The pattern of a start tag; group 1 is the name."""
        return rb"<(" + rb"|".join(self.names) + rb")(?=[\s>])"

    def border(self, name: bytes) -> bytes:
        """Returns the pattern of the end tag, or of the start tag of the next record if the end tag is missing."""
        return rb"</" + name + rb"\s*>|<" + name + rb"(?=[\s>])"


PUBMED = RecordTags(
    (b"PubmedArticle", b"PubmedBookArticle", b"MedlineCitation", b"DeleteCitation", b"DeleteDocument"),
    "not_pubmed_xml",
    "contains no PubMed record",
)


def split_records(
    chunks: Iterator[bytes], errors: ReadErrors, tags: RecordTags = PUBMED
) -> Iterator[tuple[bytes, int]]:
    """Yields (bytes of one record in UTF-8, number of its first line).

    A record is a PubmedArticle, PubmedBookArticle, DeleteCitation, DeleteDocument, or a MedlineCitation outside of
    these. Records in comments are skipped.

    Args:
      chunks: the bytes of the file.
      errors: damage is reported here.
      tags: the elements that are records.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    scanner = _Scanner(chunks, errors.max_line_bytes)
    start = scanner.search(tags.start)
    prolog = scanner.data[: start.start()] if start else scanner.data
    if b"<!ENTITY" in prolog:
        errors.report_damaged("entity_declaration", 1, "declares entities, which are not accepted")
        return
    if start is None:
        if not errors.truncated:
            errors.report_damaged(tags.reason, 1, tags.detail)
        return
    encoding, root = _encoding(prolog, errors), _root_name(prolog)
    start_or_close = tags.start + rb"|</" + root + rb"\s*>" if root else tags.start
    closed = root is None
    while start is not None:
        scanner.move_to(start.start())
        if start[1] is None:
            closed = True
            scanner.move_to(start.end())
        else:
            closed = root is None
            border = scanner.find_end(start[1]) or scanner.search(tags.border(start[1]), len(start[0]))
            if border is None:  # perhaps because of a comment without an end: its record is malformed, not the others
                border = scanner.search(tags.border(start[1]), len(start[0]), opaque=False)
            if border is not None and border[0].startswith(b"</"):
                yield _to_utf8(scanner.data[scanner.position : border.end()], encoding), scanner.line
                scanner.move_to(border.end())
            elif border is not None:
                errors.report_damaged("malformed_xml", scanner.line, "record without an end tag")
                scanner.move_to(border.start())
            elif not scanner.exhausted:
                limit = errors.max_line_bytes >> 20
                errors.report_damaged("long_record", scanner.line, f"record of more than {limit} MiB")
                scanner.skip_to(tags.border(start[1]), len(start[0]))
            else:
                break
        start = scanner.search(start_or_close, discard=True)
    if not (closed and start is None) and not errors.truncated:
        errors.report_damaged("truncated_xml", scanner.line, "file ends before its records do")


def has_opaque(data: bytes, start: int, end: int) -> bool:
    """Returns whether there may be a comment or CDATA between two positions."""
    return data.find(b"!", start, end) >= 0 and data.find(b"<!", start, end) >= 0  # the first is 80 times as fast


@functools.cache
def _tag_patterns(name: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Returns the patterns of the start tag and of the end tag of a record."""
    return re.compile(rb"<" + name + rb"(?=[\s>])"), re.compile(rb"</" + name + rb">")


class _Scanner:
    """Searches a stream of bytes and reads more of it as needed.

    Attributes:
      data: the bytes in memory.
      position: index in `data`.
      line: line number of `position`.
      exhausted: whether the stream has ended.
    """

    def __init__(self, chunks: Iterator[bytes], max_bytes: int):
        self._chunks, self._max_bytes = chunks, max_bytes
        self.data, self.position, self.line, self.exhausted = b"", 0, 1, False

    def search(
        self, pattern: bytes, skip: int = 0, *, discard: bool = False, opaque: bool = True
    ) -> re.Match[bytes] | None:
        """Returns the first match at least `skip` bytes after `position`; None at the end or after `max_bytes`.

        Args:
          discard: search beyond `max_bytes`, and drop the bytes before the match.
          opaque: do not search in comments and CDATA sections, and nowhere after one without an end.
        """
        either = re.compile(pattern + _OPAQUE_START * opaque)
        while (match := self._search(either, skip, discard)) and (end := _OPAQUE.get(match[0])):
            closing = self._search(re.compile(re.escape(end)), match.end() - self.position, discard)
            if closing is None:
                return None
            skip = closing.end() - self.position
        return match

    def find_end(self, name: bytes) -> re.Match[bytes] | None:
        """Returns the end tag of the record at `position`, if that takes no more than a few fast searches.

        None: the tag is not in memory yet, or there is a comment, CDATA or the start of another record before it.
        """
        end = self.data.find(b"</" + name + b">", self.position)
        if end < 0 or has_opaque(self.data, self.position, end):
            return None
        start, match = _tag_patterns(name)
        return None if start.search(self.data, self.position + 1, end) else match.match(self.data, end)

    def skip_to(self, pattern: bytes, skip: int) -> None:
        """Moves to the first match at least `skip` bytes after `position`, or behind it if it is an end tag."""
        match = self.search(pattern, skip, discard=True, opaque=False)
        if match is not None:
            self.move_to(match.end() if match[0].startswith(b"</") else match.start())

    def move_to(self, position: int) -> None:
        """Moves to an index in `data` and counts the lines on the way."""
        self.line += self.data.count(b"\n", self.position, position)
        self.position = position

    def _search(self, pattern: re.Pattern[bytes], skip: int, discard: bool) -> re.Match[bytes] | None:
        while True:
            if match := pattern.search(self.data, self.position + skip):
                return match
            skip = max(skip, len(self.data) - self.position - _OVERLAP)
            if self.exhausted:
                return None
            if len(self.data) - self.position > self._max_bytes:
                if not discard:
                    return None
                self.move_to(self.position + skip)
                skip = 0
            chunk = next(self._chunks, b"")
            self.exhausted = not chunk
            self.data, self.position = self.data[self.position :] + chunk, 0


def _encoding(prolog: bytes, errors: ReadErrors) -> str:
    """Returns Python's name of the declared encoding; UTF-8 for one that is unknown, which is counted as a repair."""
    match = _ENCODING.search(prolog)
    declared = match[1].decode("ascii", "replace").strip() if match else "utf-8"
    if _UNICODE_NAMES.match(declared):
        return "utf-8"  # `byte_stream` has converted it
    try:
        name = codecs.lookup(declared).name
        if name in _UTF8_NAMES:
            return "utf-8"
        if _EIGHT_BIT_NAMES.match(name) and _MARKUP.decode(name) == _MARKUP.decode("ascii"):
            errors.converted = True
            return _WINDOWS_1252 if name == _LATIN_1 else name
    except (LookupError, ValueError):
        pass
    detail = f"declares the encoding {declared[:40]!r}, which is unknown; it is read as UTF-8"
    errors.report_damaged(f"{REPAIRED_PREFIX}encoding", 1, detail)
    return "utf-8"


def _root_name(prolog: bytes) -> bytes | None:
    """Returns the escaped name of the root element; None if there is none before the first record."""
    match = _ROOT.search(_COMMENT.sub(b"", prolog))
    return re.escape(match[1]) if match else None


def _to_utf8(data: bytes, encoding: str) -> bytes:
    return data if encoding == "utf-8" or data.isascii() else data.decode(encoding, "replace").encode("utf-8")
