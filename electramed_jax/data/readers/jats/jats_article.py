"""A JATS article to documents: title, abstract, body by section, identifiers, licence.

- The title is `article-title` and `subtitle`.
- Each section of the body is a section of the document, with its heading as the label. If all
  text of a section is in its subsections, its heading precedes that of the first of them.
- The abstract comes first. Abstracts of other kinds (digests and summaries for other readers) follow it under their
  heading; graphical abstracts, teasers and tables of contents are not read. A translated abstract is a document of its
  own if `ReadOptions.other_abstracts` contains its language.
- Reference lists, author lists, footnotes, acknowledgements and tables are not read. Captions of figures and tables are
  sections at the end of their section if `ReadOptions.captions` is set.
- Sub-articles (letters of reviewers, replies, translations) are documents of their own if `ReadOptions.sub_articles` is
  set.
- Identifiers are the PMCID, the PMID and the DOI; the id of the document is the first of them.
"""

from __future__ import annotations

import dataclasses
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
from electramed_jax.data.readers.jats import jats_text
from electramed_jax.data.readers.notation import article_ids

PMC_SOURCE, OTHER_SOURCE = "pmc", "jats"

_OTHER_ABSTRACTS = {"graphical", "teaser", "toc", "tweet", "video", "precis", "web-teaser"}
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_YEAR_TYPES = ("epub", "ppub", "collection", "epub-ppub", "pub", "")
_SECTION_TAGS = {"sec", "app", "boxed-text"}
_CAPTIONED_TAGS = {"fig", "table-wrap"}
_SUB_ARTICLE_TAGS = ("sub-article", "response")

_Sections = list[tuple[str | None, str]]


def parse_article(article: Any, errors: ReadErrors, options: ReadOptions) -> Iterator[Document]:
    """Yields the document of an `article` element, then its translated abstracts and sub-articles.

    An article without text is counted in `errors` as `no_text`, one with only a title as `title_alone`.
    """
    meta = article.find("front/article-meta")
    if meta is None:
        meta = article.find("front")
    document = _parse(article, meta, options)
    if document.sections or (document.title and options.titles_alone):
        yield document
    else:
        errors.count_dropped("title_alone" if document.title else "no_text")
    if options.other_abstracts and meta is not None:
        yield from _translated_abstracts(document, meta, options)
    if options.sub_articles:
        yield from _sub_articles(document, article, options)


def _parse(article: Any, meta: Any | None, options: ReadOptions) -> Document:
    abstract: _Sections = []
    title, pmid, pmcid, doi, year, licence = "", None, "", "", None, ""
    if meta is not None:
        title = _title(meta)
        abstract = _abstract(meta, options)
        pmid, pmcid, doi = _identifiers(meta)
        year = _year(meta)
        licence = _license(meta)
    body: _Sections = []
    if (element := article.find("body")) is not None:
        _add_sections(element, None, body, options)
    if options.captions and (floats := article.find("floats-group")) is not None:
        body += _captions(floats)
    document = Document(
        id=pmcid or (f"doi:{doi}" if doi else f"PMID{pmid}" if pmid else ""),
        pmid=pmid,
        title=title,
        sections=(*abstract, *body),
        year=year,
        source=PMC_SOURCE if pmcid else OTHER_SOURCE,
        language=article_ids.language_code(article.get(_XML_LANG) or ""),
        pmcid=pmcid,
        doi=doi,
        license=licence,
        kind=FULL_TEXT if body else ABSTRACT,
        abstract_sections=len(abstract) if body else 0,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _translated_abstracts(document: Document, meta: Any, options: ReadOptions) -> Iterator[Document]:
    titles = {e.get(_XML_LANG): e for e in meta.iterfind("title-group/trans-title-group")}
    for element in meta.iterfind("trans-abstract"):
        code = element.get(_XML_LANG) or ""
        language = article_ids.language_code(code)
        sections: _Sections = []
        if language in options.other_abstracts.split(","):
            _add_sections(element, None, sections, options)
        if sections:
            group = titles.get(code)
            yield dataclasses.replace(
                document,
                id=f"{document.id}.{language}",
                title=jats_text.line(group.find("trans-title")) if group is not None else "",
                sections=tuple(sections),
                language=language,
                kind="",
                abstract_sections=0,
            )


def _sub_articles(document: Document, article: Any, options: ReadOptions) -> Iterator[Document]:
    number = 0
    for tag in _SUB_ARTICLE_TAGS:
        for element in article.iterfind(tag):
            number += 1
            meta = element.find("front-stub")
            if meta is None:
                meta = element.find("front/article-meta")
            found = _parse(element, meta, options)
            if found.sections:
                yield dataclasses.replace(
                    found,
                    id=f"{document.id}.sub{number}",
                    pmid=None,
                    pmcid="",
                    source=document.source,
                    year=found.year or document.year,
                    language=found.language or document.language,
                    license=found.license or document.license,
                    kind="",
                    abstract_sections=0,
                )


def _title(meta: Any) -> str:
    group = meta.find("title-group")
    if group is None:
        return ""
    title, subtitle = (jats_text.line(group.find(name)) for name in ("article-title", "subtitle"))
    return f"{title.rstrip(':')}: {subtitle}" if title and subtitle else title or subtitle


def _abstract(meta: Any, options: ReadOptions) -> _Sections:
    """Returns the sections of the abstract, then those of summaries under their heading."""
    found: _Sections = []
    others: _Sections = []
    for element in meta.iterfind("abstract"):
        kind = element.get("abstract-type") or ""
        if kind in _OTHER_ABSTRACTS:
            continue
        sections: _Sections = []
        heading = _heading(element) if kind else None
        if heading is None and kind not in ("", "structured", "section"):
            heading = kind.replace("-", " ").capitalize()
        _add_sections(element, heading if options.section_labels else None, sections, options)
        if kind in ("", "structured", "section"):
            found += sections
        else:
            others += sections
    return found + others


def _add_sections(element: Any, heading: str | None, sections: _Sections, options: ReadOptions) -> None:
    """Appends the sections inside an element of the body or an abstract to `sections`, in order.

    Args:
      element: a body, abstract or section.
      heading: label of the text that is directly in the element.
      sections: updated in place.
      options: headings and captions that are kept.
    """
    pending: list[str] = []  # lines of the section so far
    captions: _Sections = []

    def end_section() -> None:
        nonlocal heading
        if pending:
            sections.append((heading, "\n".join(pending)))
            pending.clear()
            heading = None

    for child in element:
        tag = child.tag
        if tag == "p":
            pending += jats_text.lines(child)
            if options.captions and len(child):
                captions += _captions(child)
        elif tag in _SECTION_TAGS:
            end_section()
            own = _heading(child) if options.section_labels else None
            _add_sections(child, f"{heading}: {own}" if heading and own else own or heading, sections, options)
            heading = None
        elif tag == "title" or tag == "label":
            continue
        elif tag in ("fig", "fig-group", "table-wrap", "table-wrap-group", "supplementary-material"):
            if options.captions:
                captions += _captions(child, including_root=True)
        elif isinstance(tag, str):
            pending += jats_text.block_lines(child)
    end_section()
    sections += captions


def _heading(element: Any) -> str | None:
    title = element.find("title")
    if title is None:
        title = element.find("caption/title")
    return jats_text.line(title).rstrip(": ") or None if title is not None else None


def _captions(element: Any, including_root: bool = False) -> _Sections:
    """Returns (label, text) of the captions of figures and tables inside an element."""
    found: _Sections = []
    for float_element in element.iter(*_CAPTIONED_TAGS):
        if float_element is element and not including_root:
            continue
        if text := " ".join(jats_text.lines(float_element.find("caption"))):
            found.append((jats_text.line(float_element.find("label")).rstrip(".: ") or None, text))
    return found


def _identifiers(meta: Any) -> tuple[int | None, str, str]:
    """Returns (PMID or None, PMCID or "", DOI or "")."""
    pmid, pmcid, doi = None, "", ""
    for element in meta.iterfind("article-id"):
        kind, text = element.get("pub-id-type"), (element.text or "").strip()
        if kind == "pmid":
            pmid = pmid or parse_positive_int(text)
        elif kind in ("pmc", "pmcid"):
            pmcid = pmcid or article_ids.normalize_pmcid(text)
        elif kind == "doi":
            doi = doi or article_ids.normalize_doi(text)
    return pmid, pmcid, doi


def _year(meta: Any) -> int | None:
    years: dict[str, int] = {}
    for date in meta.iterfind("pub-date"):
        if year := parse_positive_int((date.findtext("year") or "").strip()):
            years.setdefault(date.get("pub-type") or date.get("date-type") or "", year)
    for kind in _YEAR_TYPES:
        if kind in years:
            return years[kind]
    return min(years.values(), default=None)


def _license(meta: Any) -> str:
    """Returns the name of the licence: of its URL, or of the sentence that grants it."""
    permissions = meta.find("permissions")
    if permissions is None:
        permissions = meta
    texts: list[str] = []
    for element in permissions.iter("license", "{*}license_ref", "ext-link", "{*}License", "copyright-statement"):
        texts += [value for name, value in element.attrib.items() if name.endswith(("href", "resource", "about"))]
        if element.tag != "ext-link":
            texts.append("".join(element.itertext()))
    for text in texts:
        if name := article_ids.license_name(text):
            return name
    for element in permissions.iter("license"):
        return (element.get("license-type") or "").strip()
    return ""
