"""A PubMed record (article or book chapter) to documents.

Elements and how they are used:

- ArticleTitle: the title. A translated title loses its [brackets] and "(author's transl)"; "[Not Available]." is no
  title. VernacularTitle replaces a missing title, BookTitle that of a book record; otherwise neither is used.
- AbstractText: one section each, in order. The label is Label, or NlmCategory if there is no Label; UNLABELLED and
  UNASSIGNED are no labels. CopyrightInformation is not read. Copyright notices and truncation marks inside the text
  are removed (`notices`, `pubmed_text`).
- OtherAbstract: a separate document if `ReadOptions.other_abstracts` contains its language (English if none is
  given), with id "PMID1.fre", source "pubmed-other-abstract" and the title in its language.
- Language: in PubMed the language of the article, in a Document that of its text. Titles in brackets and abstracts are
  English in any article.
- Year: of publication; for a book chapter, of the contribution.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from lxml import etree

from electramed_jax.data.readers.document import (
    BOTH,
    OTHER_ABSTRACT_SOURCE,
    PUBMED_SOURCE,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.pubmed import notices, pubmed_text

_ENGLISH, _UNDETERMINED = "eng", "und"
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
# Compiled XPath is five times as fast as findtext.
_ARTICLE_YEAR_PATHS = tuple(
    etree.XPath(f"string({path})")
    for path in (
        "Journal/JournalIssue/PubDate/Year",
        "Journal/JournalIssue/PubDate/MedlineDate",
        "ArticleDate/Year",
    )
)
_BOOK_YEAR_PATHS = tuple(
    etree.XPath(f"string({path})")
    for path in ("ContributionDate/Year", "Book/PubDate/Year", "Book/PubDate/MedlineDate")
)
_NOT_LABELS = {"UNLABELLED", "UNLABELED", "UNASSIGNED"}
_NOT_TITLES = {"not available", "no title available", "in process citation"}
_AUTHOR_TRANSLATION = re.compile(r"\s*\(author's transl\)", re.IGNORECASE)
# Text in place of a missing abstract, and in notices of corrections.
_PLACEHOLDER = re.compile(
    r"\[?(?:Abstract available from the publisher|(?:No )?abstract (?:not )?available"
    r"|This (?:corrects|retracts|corrected|updates) the article .{1,200}?)[.\]]*",
    re.IGNORECASE,
)

_Sections = tuple[tuple[str | None, str], ...]


def parse_record(record: Any, errors: ReadErrors, options: ReadOptions) -> Iterator[Document]:
    """Yields the document of a PubmedArticle, MedlineCitation or PubmedBookArticle, then its other abstracts.

    A record without a document of its own is counted in `errors` as `no_text` or `title_alone`.
    """
    citation = record if record.tag == "MedlineCitation" else _child(record, "MedlineCitation")
    year_paths = _ARTICLE_YEAR_PATHS
    if citation is not None:
        article = _child(citation, "Article")
    else:
        citation = article = _child(record, "BookDocument")
        year_paths = _BOOK_YEAR_PATHS
    if article is None:
        errors.count_dropped("no_text")
        return
    title, translated = _title(article)
    sections = _sections(_child(article, "Abstract"), options.section_labels)
    elements = article.iterchildren("Language")
    languages = [language.lower() for element in elements if (language := pubmed_text.element_text(element))]
    pmid_element = _child(citation, "PMID")
    pmid = parse_positive_int(pubmed_text.element_text(pmid_element))
    document = Document(
        id=f"PMID{pmid}",
        pmid=pmid,
        title=title,
        sections=sections,
        year=_year(article, year_paths),
        source=PUBMED_SOURCE,
        language=text_language(languages, bool(sections) or translated),
        version=(pmid_element is not None and parse_positive_int(pmid_element.get("Version"))) or 1,
        revised=_parse_date(_child(citation, "DateRevised")),
    )
    if options.full_text != BOTH:
        pmcid, doi = _identifiers(record)
        document = dataclasses.replace(document, pmcid=pmcid, doi=doi)
    if pmid is None:
        document = dataclasses.replace(document, id=text_id(document.text))
    if sections or (title and options.titles_alone):
        yield document
    else:
        errors.count_dropped("title_alone" if title else "no_text")
    if options.other_abstracts:
        yield from _other_abstracts(document, citation, article, languages, options)


def _child(element: Any, name: str) -> Any | None:
    """Returns the first child with this name; four times as fast as `find`."""
    return next(element.iterchildren(name), None)


def _other_abstracts(
    document: Document, citation: Any, article: Any, languages: list[str], options: ReadOptions
) -> Iterator[Document]:
    wanted = options.other_abstracts.split(",")
    per_language: Counter[str] = Counter()
    for other in citation.iterfind("OtherAbstract"):
        language = (other.get("Language") or _ENGLISH).lower()
        sections = _sections(other, options.section_labels) if language in wanted else ()
        if not sections:
            continue
        per_language[language] += 1
        title = ""
        if language == _ENGLISH:
            title = document.title
        elif language in languages:
            title = pubmed_text.element_text(article.find("VernacularTitle"))
        yield dataclasses.replace(
            document,
            id=f"{document.id}.{language}" + (str(per_language[language]) if per_language[language] > 1 else ""),
            title=title,
            sections=sections,
            source=OTHER_ABSTRACT_SOURCE,
            language=language,
        )


def _identifiers(record: Any) -> tuple[str, str]:
    """Returns (PMCID, DOI) of a PubmedArticle, by which its full text is found; "" for one that is unknown."""
    pmcid = doi = ""
    for element in record.iterfind("PubmedData/ArticleIdList/ArticleId"):
        text, kind = element.text or "", element.get("IdType")
        if kind == "pmc":
            pmcid = article_ids.normalize_pmcid(text)
        elif kind == "doi":
            doi = article_ids.normalize_doi(text)
    return pmcid, doi


def _title(article: Any) -> tuple[str, bool]:
    title, translated = clean_title(pubmed_text.element_text(_child(article, "ArticleTitle")))
    for path in ("VernacularTitle", "Book/BookTitle"):
        title = title or pubmed_text.element_text(article.find(path))
    return title, translated


def clean_title(title: str) -> tuple[str, bool]:
    """Returns (title, whether it is an English translation, which PubMed writes in [brackets]).

    A placeholder such as "[Not Available]." becomes "".
    """
    title, translated = _strip_brackets(title)
    if title.strip("[]. ").lower() in _NOT_TITLES:
        return "", False
    return title, translated


def clean_abstract(text: str) -> str:
    """Removes notices and truncation marks from a whole abstract; returns "" for a placeholder."""
    text = notices.strip_notice(pubmed_text.strip_truncation_mark(text))
    return "" if _PLACEHOLDER.fullmatch(text) else text


def text_language(languages: list[str], english: bool) -> str | None:
    """Returns the language of a text from those of its article; `english`: it has an abstract or a translated title."""
    if not languages:
        return None
    if english or _ENGLISH in languages:
        return _ENGLISH
    return languages[0] if languages[0] != _UNDETERMINED else None


def _strip_brackets(title: str) -> tuple[str, bool]:
    inner = title.rstrip(".")
    if not (inner.startswith("[") and inner.endswith("]") and _is_one_bracket(inner)):
        return title, False
    inner = _AUTHOR_TRANSLATION.sub("", inner[1:-1]).strip()
    return inner if inner.endswith((".", "?", "!")) else f"{inner}.", True


def _is_one_bracket(title: str) -> bool:
    """Returns whether the last bracket closes the first one, unlike in `[A] and [B]`."""
    depth = 0
    for index, letter in enumerate(title):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return index == len(title) - 1
    return False


def _sections(abstract: Any | None, labels: bool) -> _Sections:
    if abstract is None:
        return ()
    sections: list[tuple[str | None, str]] = []
    elements = list(abstract.iterchildren("AbstractText"))
    for element in elements:
        text = pubmed_text.strip_truncation_mark(pubmed_text.element_text(element))
        if element is elements[-1]:
            text = notices.strip_notice(text)
        if text and not _PLACEHOLDER.fullmatch(text):
            sections.append((_label(element) if labels else None, text))
    return tuple(sections)


def _label(element: Any) -> str | None:
    label = " ".join((element.get("Label") or element.get("NlmCategory") or "").split()).rstrip(": ")
    return label if label and label.upper() not in _NOT_LABELS else None


def _year(article: Any, paths: tuple[etree.XPath, ...]) -> int | None:
    for path in paths:
        if match := _YEAR.search(str(path(article))):
            return int(match[0])
    return None


def _parse_date(date: Any | None) -> int | None:
    """Returns a date as the number YYYYMMDD, or None if a part is missing or invalid."""
    if date is None:
        return None
    parts = {part.tag: part.text for part in date}
    year, month, day = (parse_positive_int(parts.get(name)) for name in ("Year", "Month", "Day"))
    if not (year and month and day and year < 10_000 and month <= 12 and day <= 31):
        return None
    return year * 10_000 + month * 100 + day
