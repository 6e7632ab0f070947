"""The records of a PubMed file, cut out of its bytes before anything is parsed.

One malformed record therefore costs that record alone, memory stays that of one record, and no DTD
ever reaches the parser: entities cannot be defined, let alone fetched or blown up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from electramed_jax.data.readers.document import ReadErrors

MAX_BYTES = 64 << 20  # of one record, or of what stands before the first: no end will come

_KINDS = (b"PubmedArticle", b"PubmedBookArticle", b"MedlineCitation", b"DeleteCitation", b"DeleteDocument")
_START = rb"<(" + rb"|".join(_KINDS) + rb")(?=[\s>])"
# The end of a record, or the start of the next, before which this one should have ended.
_BORDERS = {kind: re.compile(rb"</" + kind + rb"\s*>|<" + kind + rb"(?=[\s>])") for kind in _KINDS}
_COMMENT_START, _COMMENT_END = b"<!--", re.compile(rb"-->")
_OVERLAP = 64  # longer than any tag sought, so that one cut by a chunk's end is found
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)")


def records(chunks: Iterator[bytes], findings: ReadErrors) -> Iterator[tuple[bytes, int]]:
    """(bytes of one record in UTF-8, line it begins on) of a file given as bytes.

    A record is a PubmedArticle, a PubmedBookArticle, a DeleteCitation, a DeleteDocument, or a
    MedlineCitation that stands in none of them; what is commented out is none.

    Raises:
      UserError: only when `findings` is strict.
    """
    scanner = _Scanner(chunks)
    start = scanner.search_outside_comments(_START)
    prolog = scanner.data[: start.start()] if start else scanner.data
    if b"<!ENTITY" in prolog:
        findings.damaged("entity_declaration", 1, "declares entities, which are not accepted")
        return
    if start is None:
        if not findings.cut:
            findings.damaged("not_pubmed_xml", 1, "no PubMed record in it")
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
                yield _as_utf8(scanner.data[scanner.at : border.end()], encoding), scanner.line
                scanner.move_to(border.end())
            elif border is not None:
                findings.damaged("malformed_xml", scanner.line, "record without an end tag")
                scanner.move_to(border.start())
            else:
                break
        start = scanner.search_outside_comments(start_or_close)
    if not (closed and start is None) and not findings.cut:
        findings.damaged("truncated_xml", scanner.line, "file ends before its records do")


class _Scanner:
    """A stream of bytes with a place in it, read on as a search needs it.

    Attributes:
      data: what is held; `at`: the place in it; `line`: the line that place is on.
      ended: whether the stream has no more.
    """

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks
        self.data, self.at, self.line, self.ended = b"", 0, 1, False

    def search(self, pattern: re.Pattern[bytes], skip: int = 0) -> re.Match[bytes] | None:
        """The first match from `skip` bytes on; None where the stream or MAX_BYTES end."""
        while True:
            if match := pattern.search(self.data, self.at + skip):
                return match
            skip = max(skip, len(self.data) - self.at - _OVERLAP)
            if self.ended or len(self.data) - self.at > MAX_BYTES:
                return None
            chunk = next(self._chunks, b"")
            self.ended = not chunk
            self.data, self.at = self.data[self.at :] + chunk, 0

    def search_outside_comments(self, pattern: bytes) -> re.Match[bytes] | None:
        """As `search`, passing over comments; None where one has no end."""
        either, skip = re.compile(pattern + rb"|" + _COMMENT_START), 0
        while (match := self.search(either, skip)) and match[0] == _COMMENT_START:
            end = self.search(_COMMENT_END, match.end() - self.at)
            if end is None:
                return None
            skip = end.end() - self.at
        return match

    def move_to(self, place: int) -> None:
        self.line += self.data.count(b"\n", self.at, place)
        self.at = place


def _encoding(prolog: bytes) -> str:
    match = _ENCODING.search(prolog)
    name = match[1].decode("ascii").lower() if match else "utf-8"
    return "utf-8" if name in ("utf8", "us-ascii", "ascii") else name


def _root_name(prolog: bytes) -> bytes | None:
    """Name of the element around the records; None where a record is the root itself."""
    match = _ROOT.search(_COMMENT.sub(b"", prolog))
    return re.escape(match[1]) if match else None


def _as_utf8(data: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        return data
    try:
        return data.decode(encoding, "replace").encode("utf-8")
    except LookupError:  # an encoding Python does not know: let the parser judge the bytes
        return data
