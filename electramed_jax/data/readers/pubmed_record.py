"""One record of PubMed, an article or a book chapter, as documents.

What becomes of its parts:

- ArticleTitle: the title, a translated one without its [brackets] and "(author's transl)";
  "[Not Available]." is none. VernacularTitle stands in for a title that is missing, BookTitle for
  that of a book's record; else neither is used.
- AbstractText: a section each, in order, under its Label, or under its NlmCategory where it has no
  Label; UNLABELLED and UNASSIGNED are no labels. CopyrightInformation is never text, and the
  notices and truncation marks inside the text are taken off (`pubmed_text`).
- OtherAbstract: a document of its own where `Reading.other_abstracts` names its language (none
  given means English): id "PMID1.fre", source "pubmed-other-abstract", titled in its language.
- Language: PubMed's is that of the article. A Document's is that of its text: titles in brackets
  and abstracts are English whatever the article was written in.
- Year: of publication; for a book chapter, of the contribution.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers import pubmed_text
from electramed_jax.data.readers.document import Document, PubmedOptions, ReadErrors, parse_positive_int, text_id

SOURCE = "pubmed"
OTHER_ABSTRACT = "pubmed-other-abstract"  # apart from SOURCE: no duplicate of its own article

_ENGLISH, _UNDETERMINED = "eng", "und"
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
_YEARS_OF_ARTICLE = (
    "Journal/JournalIssue/PubDate/Year",
    "Journal/JournalIssue/PubDate/MedlineDate",
    "ArticleDate/Year",
)
_YEARS_OF_BOOK = ("ContributionDate/Year", "Book/PubDate/Year", "Book/PubDate/MedlineDate")
_LABELS_OF_NOTHING = {"UNLABELLED", "UNLABELED", "UNASSIGNED"}
_NO_TITLE = {"not available", "no title available", "in process citation"}
_TRANSLATED_BY_AUTHOR = re.compile(r"\s*\(author's transl\)", re.IGNORECASE)
# What stands where no abstract was supplied, and in the notices of corrections.
_PLACEHOLDER = re.compile(
    r"\[?(?:Abstract available from the publisher|(?:No )?abstract (?:not )?available"
    r"|This (?:corrects|retracts|corrected|updates) the article .{1,200}?)[.\]]*",
    re.IGNORECASE,
)

_Sections = tuple[tuple[str | None, str], ...]


def read(record: Any, findings: ReadErrors, reading: PubmedOptions) -> Iterator[Document]:
    """The documents of a PubmedArticle, MedlineCitation or PubmedBookArticle: the article's own,
    then those of its other abstracts. A record without its own is counted: `no_text`, `title_alone`."""
    citation = record if record.tag == "MedlineCitation" else record.find("MedlineCitation")
    years = _YEARS_OF_ARTICLE
    if citation is not None:
        article = citation.find("Article")
    else:
        citation = article = record.find("BookDocument")
        years = _YEARS_OF_BOOK
    if article is None:
        findings.dropped("no_text")
        return
    title, translated = _title(article)
    sections = _sections(article.find("Abstract"), reading.section_labels)
    languages = [language.lower() for e in article.iterfind("Language") if (language := pubmed_text.line(e))]
    number = citation.find("PMID")
    pmid = parse_positive_int(pubmed_text.line(number))
    document = Document(
        id=f"PMID{pmid}",
        pmid=pmid,
        title=title,
        sections=sections,
        year=_year(article, years),
        source=SOURCE,
        language=_language(languages, bool(sections) or translated),
        version=(number is not None and parse_positive_int(number.get("Version"))) or 1,
        revised=_day(citation.find("DateRevised")),
    )
    if pmid is None:
        document = dataclasses.replace(document, id=text_id(document.text))
    if sections or (title and reading.titles_alone):
        yield document
    else:
        findings.dropped("title_alone" if title else "no_text")
    if reading.other_abstracts:
        yield from _other_abstracts(document, citation, article, languages, reading)


def _other_abstracts(
    document: Document, citation: Any, article: Any, languages: list[str], reading: PubmedOptions
) -> Iterator[Document]:
    wanted, found = reading.other_abstracts.split(","), Counter()
    for other in citation.iterfind("OtherAbstract"):
        language = (other.get("Language") or _ENGLISH).lower()
        sections = _sections(other, reading.section_labels) if language in wanted else ()
        if not sections:
            continue
        found[language] += 1
        title = ""
        if language == _ENGLISH:
            title = document.title
        elif language in languages:
            title = pubmed_text.line(article.find("VernacularTitle"))
        yield dataclasses.replace(
            document,
            id=f"{document.id}.{language}" + (str(found[language]) if found[language] > 1 else ""),
            title=title,
            sections=sections,
            source=OTHER_ABSTRACT,
            language=language,
        )


def _title(article: Any) -> tuple[str, bool]:
    """(the title, whether it is a translation into English, which stands in [brackets])."""
    title, translated = _without_brackets(pubmed_text.line(article.find("ArticleTitle")))
    if title.strip("[]. ").lower() in _NO_TITLE:
        title, translated = "", False
    for path in ("VernacularTitle", "Book/BookTitle"):
        title = title or pubmed_text.line(article.find(path))
    return title, translated


def _without_brackets(title: str) -> tuple[str, bool]:
    inner = title.rstrip(".")
    if not (inner.startswith("[") and inner.endswith("]") and _one_bracket(inner)):
        return title, False
    inner = _TRANSLATED_BY_AUTHOR.sub("", inner[1:-1]).strip()
    return inner if inner.endswith((".", "?", "!")) else f"{inner}.", True


def _one_bracket(title: str) -> bool:
    """Whether the first bracket is closed by the last one: not so in `[A] and [B]`."""
    depth = 0
    for number, letter in enumerate(title):
        depth += (letter == "[") - (letter == "]")
        if depth == 0:
            return number == len(title) - 1
    return False


def _sections(abstract: Any | None, labels: bool) -> _Sections:
    if abstract is None:
        return ()
    sections: list[tuple[str | None, str]] = []
    elements = abstract.findall("AbstractText")
    for element in elements:
        text = pubmed_text.without_truncation_mark(pubmed_text.line(element))
        if element is elements[-1]:
            text = pubmed_text.without_copyright(text)
        if text and not _PLACEHOLDER.fullmatch(text):
            sections.append((_label(element) if labels else None, text))
    return tuple(sections)


def _label(element: Any) -> str | None:
    label = " ".join((element.get("Label") or element.get("NlmCategory") or "").split()).rstrip(": ")
    return label if label and label.upper() not in _LABELS_OF_NOTHING else None


def _language(languages: list[str], english: bool) -> str | None:
    if not languages:
        return None
    if english or _ENGLISH in languages:
        return _ENGLISH
    return languages[0] if languages[0] != _UNDETERMINED else None


def _year(article: Any, paths: tuple[str, ...]) -> int | None:
    for path in paths:
        if match := _YEAR.search(article.findtext(path) or ""):
            return int(match[0])
    return None


def _day(date: Any | None) -> int | None:
    """YYYYMMDD, or None where a part is missing or no number."""
    if date is None:
        return None
    year, month, day = (parse_positive_int(date.findtext(part)) for part in ("Year", "Month", "Day"))
    if not (year and month and day and year < 10_000 and month <= 12 and day <= 31):
        return None
    return year * 10_000 + month * 100 + day
