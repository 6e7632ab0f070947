"""RIS reader: exports of reference managers and databases (EndNote, Zotero, Embase, Europe PMC).

Title (TI, T1), abstract (AB, N2), year (PY, Y1, DA), language (LA), DOI (DO). A PMID comes from AN where the database
(DB, DP) is PubMed or MEDLINE, or from a link to PubMed (UR, L1, L2); a PMCID from C2, AN or a link.

Reasons: `no_text`, `title_alone` (see `ReadOptions.titles_alone`).
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator

from electramed_jax.data.readers.document import (
    ABSTRACT,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.exports import tagged_lines
from electramed_jax.data.readers.exports.tagged_lines import Fields
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.pubmed import pubmed_record

_TAG = re.compile(r"\ufeff?([A-Z][A-Z0-9])(?:  -(?: |\s*$)|(?<=ER) *-\s*$)")  # \s: a carriage return
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
_PUBMED_LINK = re.compile(r"(?:ncbi\.nlm\.nih\.gov/pubmed|pubmed\.ncbi\.nlm\.nih\.gov)/(\d{1,9})\b")
_PMC_LINK = re.compile(r"\bPMC\d{1,9}\b")
_LINKS = ("UR", "L1", "L2", "LK")
_USED = frozenset(
    {"TY", "TI", "T1", "AB", "N2", "PY", "Y1", "DA", "LA", "DO", "M3", "AN", "DB", "DP", "C2", "ER", *_LINKS}
)
_LANGUAGE_NAMES = {"english": "eng", "french": "fre", "german": "ger", "spanish": "spa", "chinese": "chi"}


def read(errors: ReadErrors, options: ReadOptions, *_args: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`."""
    source = os.path.basename(errors.path)
    for fields, _ in tagged_lines.read_records(errors, _TAG, _USED, ("TY",), last="ER"):
        document = _document(fields, source)
        if document.sections or (document.title and options.titles_alone):
            yield document
        else:
            errors.count_dropped("title_alone" if document.title else "no_text")


def _document(fields: Fields, source: str) -> Document:
    year = _YEAR.search(_first(fields, "PY", "Y1", "DA"))
    abstract = pubmed_record.clean_abstract(_first(fields, "AB", "N2"))
    links = " ".join(value for tag in _LINKS for value in fields.get(tag, []))
    database = _first(fields, "DB", "DP").lower()
    link = _PUBMED_LINK.search(links)
    pmid = parse_positive_int(_first(fields, "AN")) if "pubmed" in database or "medline" in database else None
    pmid = pmid or (parse_positive_int(link[1]) if link else None)
    pmc = _PMC_LINK.search(" ".join((_first(fields, "C2"), _first(fields, "AN"), links)))
    doi = article_ids.normalize_doi(_first(fields, "DO") or _first(fields, "M3"))
    language = _first(fields, "LA").lower()
    document = Document(
        id=f"PMID{pmid}" if pmid else f"doi:{doi}" if doi else "",
        pmid=pmid,
        title=_first(fields, "TI", "T1"),
        sections=((None, abstract),) if abstract else (),
        year=int(year[0]) if year else None,
        source=source,
        language=_LANGUAGE_NAMES.get(language) or article_ids.language_code(language),
        pmcid=pmc[0] if pmc else "",
        doi=doi,
        kind=ABSTRACT,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _first(fields: Fields, *tags: str) -> str:
    return next((fields[tag][0] for tag in tags if tag in fields), "")
