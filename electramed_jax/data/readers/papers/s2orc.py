"""S2ORC and CORD-19 reader: full texts as JSON, alone, in an array or one a line, of every generation.

- 2019: `metadata` with title and identifiers; text in `grobid_parse` or `latex_parse`.
- 2020, and CORD-19: `abstract` and `body_text`, lists of paragraphs with their section.
- doc2json: `title`, `abstract` (a string), text in `pdf_parse` or `latex_parse`.
- the datasets of Semantic Scholar's API: one `content` with the text, and annotations with the places of its parts.

Consecutive paragraphs of one section are a section of the document. Citations by number are removed. References,
figures and tables are not read; their captions are, if `ReadOptions.captions` is set.

Reasons: those of `json_values`, `bad_record` (no object of these forms), `no_text`, `title_alone`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers.document import (
    ABSTRACT,
    FULL_TEXT,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.tables import json_values

SOURCE = "s2orc"

_PARSES = ("latex_parse", "pdf_parse", "grobid_parse")  # the best first
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
_NUMBERS = re.compile(r"[\s\[(]*\d[\d\s,;–-]*[\s\])]*")
_EMPTY_BRACKETS = re.compile(r"\s*[\[(][\s,;–-]*[\])]")
_SPACE_BEFORE = re.compile(r"\s+([.,;:])")

_Sections = list[tuple[str | None, str]]


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for record in json_values.read_values(errors):
        document = _document(record, options) if isinstance(record, dict) else None
        if document is None:
            errors.report_damaged("bad_record", 0, "not an S2ORC article")
        elif document.sections or (document.title and options.titles_alone):
            yield document
        else:
            errors.count_dropped("title_alone" if document.title else "no_text")


def _document(record: dict[str, Any], options: ReadOptions) -> Document | None:
    metadata = _object(record.get("metadata"))
    parsed = next((parse for name in _PARSES if (parse := _object(record.get(name))).get("body_text")), {})
    if isinstance(record.get("content"), dict):
        title, abstract, body = _from_content(record["content"])
    else:
        if not ({"body_text", "abstract", "metadata", *_PARSES} & record.keys()):
            return None
        title = _text(record.get("title")) or _text(metadata.get("title"))
        abstract = _first_text(metadata.get("abstract"), record.get("abstract"), parsed.get("abstract"))
        body = _paragraphs(parsed.get("body_text") or record.get("body_text"))
        if options.captions:
            body += _captions(parsed.get("ref_entries") or record.get("ref_entries"))
    if not options.section_labels:
        abstract, body = [(None, text) for _, text in abstract], [(None, text) for _, text in body]
    identifiers = metadata | _object(record.get("identifiers")) | _object(record.get("externalids"))
    known = {name.lower().replace("_", ""): _text(value).strip() for name, value in identifiers.items()}
    name = _text(record.get("paper_id") or record.get("corpusid"))
    pmcid = article_ids.normalize_pmcid(known.get("pmcid") or known.get("pubmedcentral") or "")
    if not pmcid and name.startswith("PMC"):
        pmcid = article_ids.normalize_pmcid(name.partition(".")[0])
    pmid = parse_positive_int(known.get("pubmedid") or known.get("pubmed") or known.get("pmid"))
    year = _YEAR.search(_text(record.get("year")) or known.get("year", ""))
    licence = _text(_object(record.get("openaccessinfo")).get("license")) or known.get("license", "")
    document = Document(
        id=f"S2:{name}" if name else "",
        pmid=pmid,
        title=title,
        sections=(*abstract, *body),
        year=int(year[0]) if year else None,
        source=SOURCE,
        pmcid=pmcid,
        doi=article_ids.normalize_doi(known.get("doi", "")),
        license=article_ids.license_name(licence) or licence,
        kind=FULL_TEXT if body else ABSTRACT,
        abstract_sections=len(abstract) if body else 0,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _first_text(*candidates: Any) -> _Sections:
    """Returns the first abstract that has text; each candidate is a string or a list of paragraphs."""
    for candidate in candidates:
        if text := _text(candidate).strip():
            return [(None, text)]
        if isinstance(candidate, list) and (sections := _paragraphs(candidate)):
            return [(None if (label or "").lower() == "abstract" else label, text) for label, text in sections]
    return []


def _paragraphs(paragraphs: Any) -> _Sections:
    """Returns a section for each run of paragraphs with the same heading."""
    found: _Sections = []
    for paragraph in paragraphs if isinstance(paragraphs, list) else []:
        text = _without_citations(paragraph) if isinstance(paragraph, dict) else ""
        if not text:
            continue
        label = " ".join(_text(paragraph.get("section")).split()).rstrip(":") or None
        _add(found, label, text)
    return found


def _add(sections: _Sections, label: str | None, text: str) -> None:
    """Appends a paragraph, to the last section if it has the same heading."""
    if sections and sections[-1][0] == label:
        sections[-1] = (label, f"{sections[-1][1]}\n{text}")
    else:
        sections.append((label, text))


def _without_citations(paragraph: dict[str, Any]) -> str:
    """Returns the text of a paragraph without its citations by number."""
    text = _text(paragraph.get("text"))
    spans = paragraph.get("cite_spans")
    removed = []
    for span in spans if isinstance(spans, list) else []:
        start, end = (span.get(name) if isinstance(span, dict) else None for name in ("start", "end"))
        is_valid = isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)
        if is_valid and _NUMBERS.fullmatch(text[start:end]):
            removed.append((start, end))
    for start, end in sorted(removed, reverse=True):
        text = text[:start] + text[end:]
    if removed:
        text = _SPACE_BEFORE.sub(r"\1", _EMPTY_BRACKETS.sub("", text))
    return " ".join(text.split())


def _captions(entries: Any) -> _Sections:
    texts = (_text(entry.get("text")) for entry in _object(entries).values() if isinstance(entry, dict))
    return [(None, text) for text in texts if text.strip()]


def _from_content(content: dict[str, Any]) -> tuple[str, _Sections, _Sections]:
    """Returns (title, abstract, body) of a text with annotations, each a list of places as JSON."""
    text = _text(content.get("text"))
    annotations = _object(content.get("annotations"))
    title = " ".join(text[start:end] for start, end in _places(annotations.get("title"), text)[:1])
    in_abstract = _places(annotations.get("abstract"), text)
    marks = [(start, end, True) for start, end in _places(annotations.get("sectionheader"), text)]
    marks += [(start, end, False) for start, end in _places(annotations.get("paragraph"), text)]
    heading: str | None = None
    abstract: _Sections = []
    body: _Sections = []
    for start, end, is_heading in sorted(marks):
        line = " ".join(text[start:end].split())
        if is_heading:
            heading = line or None
        elif line:
            inside = any(first <= start < last for first, last in in_abstract)
            _add(abstract if inside else body, None if inside else heading, line)
    if not abstract:
        abstract = [(None, line) for start, end in in_abstract if (line := " ".join(text[start:end].split()))]
    if not (abstract or body) and text.strip():
        body = [(None, text)]
    return " ".join(title.split()), abstract, body


def _places(value: Any, text: str) -> list[tuple[int, int]]:
    """Returns the valid (start, end) of an annotation: a list of objects, or such a list as a JSON string."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    found = []
    for place in value if isinstance(value, list) else []:
        start, end = (parse_int(place.get(name)) if isinstance(place, dict) else None for name in ("start", "end"))
        if start is not None and end is not None and 0 <= start < end <= len(text):
            found.append((start, end))
    return found


def parse_int(value: Any) -> int | None:
    """Converts an int or a string of digits to an int; returns None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return json_values.to_text(value)
