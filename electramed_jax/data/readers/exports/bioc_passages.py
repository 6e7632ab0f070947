"""Passages of a BioC document to a `Document`, for BioC XML and BioC JSON.

The kind of a passage is its infon `type` or `section_type`, as in the BioC files of PubMed, PMC and PubTator:
titles, abstracts, headings and paragraphs are read; references, tables, footnotes, acknowledgements and statements of
interest are not; captions are, if `ReadOptions.captions` is set. A passage without a kind is a paragraph. Its text is
its own, or that of its sentences. Annotations and relations are not read.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from electramed_jax.data.readers.document import (
    ABSTRACT,
    FULL_TEXT,
    Document,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.record_fields import field_text

SOURCE = "bioc"

Passage = tuple[Mapping[str, Any], str]  # infons, text

_TITLES = {"title", "front"}
_HEADINGS = re.compile(r"(?:abstract_)?title(?:_\d+)?|title_caption")
_CAPTIONS = re.compile(r"(?:fig|table).*caption")
_OMITTED_TYPES = re.compile(r"ref|reference|table|footnote|table_foot(?:note)?|keywords?|authors?")
_OMITTED_SECTIONS = {"REF", "ACK_FUND", "AUTH_CONT", "COMP_INT", "SUPPL", "KEYWORD", "REVIEW_INFO"}
_OMITTED, _CAPTION, _HEADING, _ABSTRACT, _BODY = range(5)  # roles of passages
_ARTICLE_INFONS = {"article-id_pmid", "article-id_pmc", "article-id_doi", "year", "license"}
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")


def to_document(name: str, infons: Mapping[str, Any], passages: Iterable[Passage], options: ReadOptions) -> Document:
    """Returns the document of a BioC document with the id `name`; its title and sections may be empty."""
    title, heading = "", None
    abstract: list[tuple[str | None, str]] = []
    body: list[tuple[str | None, str]] = []
    known = {key: field_text(infons[key]) for key in _ARTICLE_INFONS & infons.keys()}
    for passage_infons, text in passages:
        for key in _ARTICLE_INFONS & passage_infons.keys():
            known.setdefault(key, field_text(passage_infons[key]))
        kind, section = passage_infons.get("type", ""), passage_infons.get("section_type", "")
        is_title, role = _role(kind if isinstance(kind, str) else "", section if isinstance(section, str) else "")
        text = " ".join(text.split())
        if not text or role == _OMITTED:
            continue
        if is_title and not title:
            title = text
        elif role == _CAPTION:
            if options.captions:
                body.append((None, text))
        elif role == _HEADING:
            heading = text.rstrip(":")
        else:
            label, heading = heading, None
            (abstract if role == _ABSTRACT else body).append((label if options.section_labels else None, text))
    pmid = parse_positive_int(known.get("article-id_pmid", ""))
    pmcid = article_ids.normalize_pmcid(known["article-id_pmc"]) if "article-id_pmc" in known else ""
    if not (pmid or pmcid):
        if name.upper().startswith("PMC"):
            pmcid = article_ids.normalize_pmcid(name)
        else:
            pmid = parse_positive_int(name)
    year = _YEAR.search(known.get("year", ""))
    licence = known.get("license", "")
    document = Document(
        id=pmcid or (f"PMID{pmid}" if pmid else name),
        pmid=pmid,
        title=title,
        sections=(*abstract, *body),
        year=int(year[0]) if year else None,
        source=SOURCE,
        pmcid=pmcid,
        doi=article_ids.normalize_doi(known.get("article-id_doi", "")),
        license=(article_ids.license_name(licence) or " ".join(licence.split())[:80]) if licence else "",
        kind=FULL_TEXT if (abstract and body) or (pmcid and body) else ABSTRACT,
        abstract_sections=len(abstract) if body else 0,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


@functools.lru_cache(1024)
def _role(kind: str, section: str) -> tuple[bool, int]:
    """Returns whether a passage of this type and section can be the title, and its role otherwise."""
    kind, section = kind.lower(), section.upper()
    if section in _OMITTED_SECTIONS or _OMITTED_TYPES.fullmatch(kind):
        return False, _OMITTED
    is_title = kind in _TITLES or section == "TITLE"
    if section in ("FIG", "TABLE") or _CAPTIONS.fullmatch(kind):
        return is_title, _CAPTION
    if _HEADINGS.fullmatch(kind):
        return is_title, _HEADING
    return is_title, _ABSTRACT if section == "ABSTRACT" or "abstract" in kind else _BODY
