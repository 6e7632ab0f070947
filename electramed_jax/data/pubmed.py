"""PubMed's XML, article by article.

The file is cut at article borders before anything is parsed, and each article is parsed by itself.
So one malformed article costs that article alone, memory stays that of one article, and no DTD is
ever seen by the parser: entities cannot be defined, let alone fetched or blown up.

Reasons counted: `malformed_xml` (an article that is not well-formed), `truncated_xml` (the file
ends inside an article or before its root is closed), `not_pubmed_xml` (no article in the file),
`entity_declaration` (the whole file is refused), `no_text` (neither title nor abstract),
`book_article` (a PubmedBookArticle).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lxml import etree

from electramed_jax.data.documents import REPAIRED, Document, Findings, Reading, text_id, whole_number

SOURCE = "pubmed"
MAX_BYTES = 64 << 20  # of one article, or of what stands before the first: no end will come

_KINDS = rb"PubmedArticle|PubmedBookArticle|MedlineCitation"
_START = re.compile(rb"<(" + _KINDS + rb")(?=[\s>])")
_OVERLAP = 64  # longer than any tag sought, so that one cut by a chunk's end is found
_ROOT = re.compile(rb"<([A-Za-z_][\w.-]*)")
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ENCODING = re.compile(rb"<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)")
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
_LABELS_OF_NOTHING = {"UNLABELLED", "UNLABELED", "UNASSIGNED"}
_NO_TITLE = {"[not available].", "[not available]", "not available.", "not available"}
_SPACE = re.compile(r"\s+")


def read(chunks: Iterator[bytes], findings: Findings, reading: Reading = Reading()) -> Iterator[Document]:
    """Documents of a PubmedArticleSet (or the older MedlineCitationSet), given as bytes.

    Raises:
      UserError: only when `findings` is strict.
    """
    parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    for data, line in _articles(_Scanner(chunks), findings):
        try:
            article = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            article = _parse_with_replacement(data, parser)
            if article is None:
                findings.damaged("malformed_xml", line, f"article is not well-formed ({error.msg})")
                continue
            findings.damaged(f"{REPAIRED}utf8", line, "bytes that are not UTF-8")
        if article.tag == "PubmedBookArticle":
            findings.dropped("book_article")
        elif (document := _document(article, reading)) is None:
            findings.dropped("no_text")
        else:
            yield document


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

    def move_to(self, place: int) -> None:
        self.line += self.data.count(b"\n", self.at, place)
        self.at = place


def _articles(scanner: _Scanner, findings: Findings) -> Iterator[tuple[bytes, int]]:
    """(bytes of one article in UTF-8, line it begins on)."""
    start = scanner.search(_START)
    prolog = scanner.data[: start.start()] if start else scanner.data
    if b"<!ENTITY" in prolog:
        findings.damaged("entity_declaration", 1, "declares entities, which are not accepted")
        return
    if start is None:
        if not findings.cut:
            findings.damaged("not_pubmed_xml", 1, "no PubmedArticle in it")
        return
    encoding, root = _encoding(prolog), _root_name(prolog)
    next_or_close = re.compile(_START.pattern + rb"|</" + root + rb"\s*>") if root else _START
    closed = root is None
    while start is not None:
        scanner.move_to(start.start())
        if start[1] is None:
            closed = True
            scanner.move_to(start.end())
        else:
            closed = root is None
            border = scanner.search(_border(start[1]), len(start[0]))
            if border is not None and border[0].startswith(b"</"):
                yield _as_utf8(scanner.data[scanner.at : border.end()], encoding), scanner.line
                scanner.move_to(border.end())
            elif border is not None:
                findings.damaged("malformed_xml", scanner.line, "article without an end tag")
                scanner.move_to(border.start())
            else:
                break
        start = scanner.search(next_or_close)
    if not (closed and start is None) and not findings.cut:
        findings.damaged("truncated_xml", scanner.line, "file ends before its articles do")


def _border(kind: bytes) -> re.Pattern[bytes]:
    """The end of an article, or the start of the next, before which this one should have ended."""
    return re.compile(rb"</" + kind + rb"\s*>|<" + kind + rb"(?=[\s>])")


def _encoding(prolog: bytes) -> str:
    match = _ENCODING.search(prolog)
    name = match[1].decode("ascii").lower() if match else "utf-8"
    return "utf-8" if name in ("utf8", "us-ascii", "ascii") else name


def _root_name(prolog: bytes) -> bytes | None:
    """Name of the element around the articles; None where the article is the root itself."""
    match = _ROOT.search(_COMMENT.sub(b"", prolog))
    return re.escape(match[1]) if match else None


def _as_utf8(data: bytes, encoding: str) -> bytes:
    if encoding == "utf-8":
        return data
    try:
        return data.decode(encoding, "replace").encode("utf-8")
    except LookupError:  # an encoding Python does not know: let the parser judge the bytes
        return data


def _parse_with_replacement(data: bytes, parser: Any) -> Any | None:
    """The article with bytes that are not UTF-8 replaced, or None where that does not mend it."""
    mended = data.decode("utf-8", "replace").encode("utf-8")
    if mended == data:
        return None
    try:
        return etree.fromstring(mended, parser)
    except etree.XMLSyntaxError:
        return None


def _document(root: Any, reading: Reading) -> Document | None:
    citation = root if root.tag == "MedlineCitation" else root.find("MedlineCitation")
    article = citation.find("Article") if citation is not None else None
    if article is None:
        return None
    title = _title(article.find("ArticleTitle"))
    sections = tuple(_sections(article.iterfind("Abstract/AbstractText"), reading.section_labels))
    if not title and not sections:
        return None
    pmid = whole_number(_text(citation.find("PMID")))
    document = Document(f"PMID{pmid}", pmid, title, sections, _year(article), SOURCE)
    if pmid is None:
        return Document(text_id(document.text), None, title, sections, document.year, SOURCE)
    return document


def _title(element: Any | None) -> str:
    """The title; a translated one stands in [brackets], which are taken off."""
    title = _text(element)
    if title.lower() in _NO_TITLE:
        return ""
    inner = title.rstrip(".")
    if inner.startswith("[") and inner.endswith("]") and _one_bracket(inner):
        inner = inner[1:-1].strip()
        return inner if inner.endswith((".", "?", "!")) else f"{inner}."
    return title


def _one_bracket(title: str) -> bool:
    """Whether the first bracket is closed by the last one: not so in `[A] and [B]`."""
    depth = 0
    for number, letter in enumerate(title):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return number == len(title) - 1
    return False


def _sections(elements: Iterator[Any], labels: bool) -> Iterator[tuple[str | None, str]]:
    for element in elements:
        text = _text(element)
        if text:
            label = _SPACE.sub(" ", element.get("Label") or "").strip().rstrip(":")
            yield (label if labels and label and label.upper() not in _LABELS_OF_NOTHING else None), text


def _year(article: Any) -> int | None:
    for path in ("Journal/JournalIssue/PubDate/Year", "Journal/JournalIssue/PubDate/MedlineDate"):
        if match := _YEAR.search(_text(article.find(path))):
            return int(match[0])
    match = _YEAR.search(_text(article.find("ArticleDate/Year")))
    return int(match[0]) if match else None


def _text(element: Any | None) -> str:
    """All text inside an element, inline markup (<i>, <sub>, ...) taken off, in one line."""
    if element is None:
        return ""
    return _SPACE.sub(" ", "".join(element.itertext())).strip()
