"""MEDLINE reader: PubMed's own text export (.nbib, "Save as PubMed", "Send to: Citation manager").

A record becomes the same document as in PubMed XML: title (TI; BTI of a book), abstract (AB), year (DP), language (LA),
date of revision (LR), identifiers (PMID, PMC, AID and LID). The export writes the labels of a structured abstract into
the text, so they are kept.

Reasons: `no_text`, `title_alone` (see `ReadOptions.titles_alone`), `bad_record` (a record without a PMID).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from electramed_jax.data.readers.document import (
    PUBMED_SOURCE,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
)
from electramed_jax.data.readers.exports import tagged_lines
from electramed_jax.data.readers.exports.tagged_lines import Fields
from electramed_jax.data.readers.notation import article_ids
from electramed_jax.data.readers.pubmed import pubmed_record

_TAG = re.compile(r"([A-Z][A-Z0-9]{1,3}) {0,2}- ?")
_USED = frozenset({"PMID", "TI", "TT", "BTI", "AB", "LA", "DP", "LR", "AID", "LID", "PMC"})
_YEAR = re.compile(r"\b(1[89]|20)\d\d\b")
_DAY = re.compile(r"(?:18|19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for fields, line in tagged_lines.read_records(errors, _TAG, _USED, ("PMID",)):
        document = _document(fields)
        if document is None:
            errors.report_damaged("bad_record", line, "record without a PMID")
        elif document.sections or (document.title and options.titles_alone):
            yield document
        else:
            errors.count_dropped("title_alone" if document.title else "no_text")


def _document(fields: Fields) -> Document | None:
    pmid = parse_positive_int(_first(fields, "PMID"))
    if pmid is None:
        return None
    title, translated = pubmed_record.clean_title(_first(fields, "TI"))
    title = title or _first(fields, "TT") or _first(fields, "BTI")
    abstract = pubmed_record.clean_abstract(" ".join(fields.get("AB", [])))
    languages = [code.lower() for code in fields.get("LA", [])]
    year, revised = _YEAR.search(_first(fields, "DP")), _DAY.fullmatch(_first(fields, "LR"))
    doi = next((v for tag in ("AID", "LID") for v in fields.get(tag, []) if v.endswith("[doi]")), "")
    return Document(
        id=f"PMID{pmid}",
        pmid=pmid,
        title=title,
        sections=((None, abstract),) if abstract else (),
        year=int(year[0]) if year else None,
        source=PUBMED_SOURCE,
        language=pubmed_record.text_language(languages, bool(abstract) or translated),
        revised=int(revised[0]) if revised else None,
        pmcid=article_ids.normalize_pmcid(_first(fields, "PMC")),
        doi=article_ids.normalize_doi(doi),
    )


def _first(fields: Fields, tag: str) -> str:
    return fields.get(tag, [""])[0]
