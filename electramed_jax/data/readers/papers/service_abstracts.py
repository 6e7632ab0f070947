"""Europe PMC and Semantic Scholar reader: titles and abstracts in the JSON of their services.

- Europe PMC: a search result (`resultList`), or its records.
- Semantic Scholar: a search or batch result (`data`, or an array), records of the Graph API (`paperId`), and the
  datasets of abstracts (`corpusid`, one a line).

The markup of an abstract (`<h4>Background</h4>`) gives the sections; other tags are removed.

Reasons: those of `json_values`, `bad_record` (no object), `no_text`, `title_alone` (see `ReadOptions.titles_alone`).
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers.document import (
    ABSTRACT,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.pubmed import pubmed_record
from electramed_jax.data.readers.tables import json_values

EUROPE_PMC, SEMANTIC_SCHOLAR = "europe-pmc", "semantic-scholar"

_LISTS = frozenset({"resultList", "result", "data", "hitList"})
_HEADING = re.compile(r"<h\d[^>]*>(.*?)</h\d>", re.IGNORECASE | re.DOTALL)
_BLOCK_TAG = re.compile(r"</?(?:p|br|div|li|ul|ol|h\d|sec|title)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9:-]*(?:\s[^<>]*)?/?>")


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for record in json_values.read_values(errors, _LISTS):
        if not isinstance(record, dict):
            errors.report_damaged("bad_record", 0, "not an object")
            continue
        document = _document(record, options)
        if document.sections or (document.title and options.titles_alone):
            yield document
        else:
            errors.count_dropped("title_alone" if document.title else "no_text")


def _document(record: dict[str, Any], options: ReadOptions) -> Document:
    is_semantic = "paperId" in record or "corpusid" in record
    outside = _object(record.get("openaccessinfo"))
    identifiers = _object(record.get("externalIds")) | _object(outside.get("externalids")) | record
    known = {name.lower(): json_values.to_text(value) for name, value in identifiers.items()}
    pmid = parse_positive_int(known.get("pmid") or known.get("pubmed"))
    pmcid = article_ids.normalize_pmcid(known.get("pmcid") or known.get("pubmedcentral") or "")
    doi = article_ids.normalize_doi(known.get("doi", ""))
    licence = known.get("license") or json_values.to_text(outside.get("license"))
    own = known.get("paperid") or known.get("corpusid") or known.get("id", "")
    name = f"PMID{pmid}" if pmid else pmcid or (f"doi:{doi}" if doi else f"S2:{own}" if is_semantic and own else own)
    document = Document(
        id=name,
        pmid=pmid,
        title=_plain(known.get("title", "")),
        sections=_sections(known.get("abstracttext") or known.get("abstract") or "", options),
        year=parse_positive_int(known.get("pubyear") or known.get("year")),
        source=SEMANTIC_SCHOLAR if is_semantic else EUROPE_PMC,
        language=article_ids.language_code(known.get("language", "")),
        pmcid=pmcid,
        doi=doi,
        license=article_ids.license_name(licence) or licence,
        kind=ABSTRACT,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _sections(abstract: str, options: ReadOptions) -> tuple[tuple[str | None, str], ...]:
    """Splits an abstract at its headings; each piece after the first is preceded by its heading."""
    first, *others = _HEADING.split(abstract)
    pairs = [("", first), *zip(others[::2], others[1::2], strict=False)]
    found = []
    for heading, body in pairs:
        if text := pubmed_record.clean_abstract(_plain(body)):
            label = _plain(heading).rstrip(".: ") if options.section_labels else ""
            found.append((label or None, text))
    return tuple(found)


def _plain(text: str) -> str:
    """Removes tags and resolves entities; the tags of blocks separate words."""
    text = html.unescape(_TAG.sub("", _BLOCK_TAG.sub(" ", text)))
    return " ".join(text.split())


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
