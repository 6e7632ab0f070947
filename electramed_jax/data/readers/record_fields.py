"""Fields of a record of any origin (JSON, a table, a dataset) to a `Document`: which of them is text, title, id.

Common names are found by themselves, without regard to case and punctuation ("Full Text" is `full_text`). The text is
`text`; or the abstract and the body, in this order, if there are fields for them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers.document import (
    Document,
    ReadOptions,
    parse_positive_int,
    text_id,
)
from electramed_jax.data.readers.notation import article_ids

_TEXT = ("text", "sentence", "sentences", "passage")
_ABSTRACT = ("abstract", "abstract_text", "abstracttext", "summary")
_BODY = ("body", "body_text", "full_text", "fulltext", "article", "content", "contents", "document", "paper", "note")
_TITLE = ("title", "article_title", "paper_title", "headline")
_ID = ("id", "_id", "doc_id", "document_id", "paper_id", "article_id", "uid", "guid")
_OTHERS = {
    "pmid": ("pmid", "pubmed_id", "pubmedid", "pubmed"),
    "pmcid": ("pmcid", "pmc_id", "pmc"),
    "doi": ("doi",),
    "year": ("year", "publication_year", "pub_year", "publish_year", "date", "publish_time"),
    "license": ("license", "licence"),
    "language": ("language", "lang"),
    "source": ("source",),
}
_YEAR = re.compile(r"(?:1[89]|20)\d\d")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair, which JSON can contain and UTF-8 cannot
_SHOWN_FIELDS, _SHOWN_CHARS = 30, 40  # of the names of fields in an error
_NOT_LETTERS = re.compile(r"[^a-z0-9]+")


@dataclasses.dataclass(frozen=True)
class Fields:
    """Names of the fields with each part of a document; "" for a part that no field has.

    Attributes:
      text: one section each, in order.
      others: part ("pmid", "doi", ...) -> its field.
    """

    text: tuple[str, ...]
    title: str
    id: str
    others: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The fields that are needed, without repetition."""
        names = [*self.text, self.title, self.id, *self.others.values()]
        return list(dict.fromkeys(name for name in names if name))


def find_fields(names: Iterable[Any], options: ReadOptions, path: str) -> Fields:
    """Returns which of the fields `names` hold the parts of a document.

    Raises:
      UserError: no field has text, or one named in `options` does not exist; lists those that do.
    """
    present = [name for name in names if isinstance(name, str)]
    known = {_NOT_LETTERS.sub("_", name.lower()).strip("_"): name for name in reversed(present)}
    known |= {name: name for name in present}
    shown = ", ".join(" ".join(name.split())[:_SHOWN_CHARS] for name in present[:_SHOWN_FIELDS]) or "none"

    def chosen(option: str, wanted: str) -> str:
        if wanted not in present:
            raise UserError(f"{path}: no field {wanted!r} for --{option}; it has {shown}")
        return wanted

    def first(common: Sequence[str]) -> str:
        return next((known[name] for name in common if name in known), "")

    if options.text_field:
        text = tuple(chosen("text_field", name.strip()) for name in options.text_field.split(","))
    elif found := first(_TEXT):
        text = (found,)
    else:
        text = tuple(name for name in (first(_ABSTRACT), first(_BODY)) if name)
    if not text:
        raise UserError(f"{path}: no field with a common name for text; it has {shown}; name it with --text_field")
    title = chosen("title_field", options.title_field) if options.title_field else first(_TITLE)
    identifier = chosen("id_field", options.id_field) if options.id_field else first(_ID)
    others = {part: name for part, common in _OTHERS.items() if (name := first(common)) and name not in text}
    return Fields(text, title if title not in text else "", identifier, others)


def has_text_field(names: Iterable[str]) -> bool:
    """Returns whether one of the fields has a common name for text."""
    known = {_NOT_LETTERS.sub("_", name.lower()).strip("_") for name in names}
    return not known.isdisjoint((*_TEXT, *_ABSTRACT, *_BODY))


def to_document(record: Mapping[str, Any], fields: Fields, source: str) -> Document | None:
    """Returns the document of a record; None if its text is missing or is neither a string nor a list of strings."""
    texts = [field_text(record.get(name)) for name in fields.text]
    if not any(texts):
        return None
    others = {part: record.get(name) for part, name in fields.others.items()}
    year = _YEAR.search(field_text(others.get("year")))
    licence = field_text(others.get("license"))
    document = Document(
        id=field_text(record.get(fields.id)) if fields.id else "",
        pmid=parse_positive_int(_whole(others.get("pmid"))),
        title=field_text(record.get(fields.title)) if fields.title else "",
        sections=tuple((None, text) for text in texts if text),
        year=int(year[0]) if year else None,
        source=field_text(others.get("source")) or source,
        language=article_ids.language_code(field_text(others.get("language"))),
        pmcid=article_ids.normalize_pmcid(field_text(others.get("pmcid"))),
        doi=article_ids.normalize_doi(field_text(others.get("doi"))),
        license=article_ids.license_name(licence) or licence,
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def find_separator(header: str) -> str:
    """Returns the separator of a table that occurs most in its header line; the comma if none does."""
    return max("\t,;|", key=lambda letter: (header.count(letter), letter == ","))


def field_text(value: Any) -> str:
    """Returns the text of a value: a string, a number, or a list of strings as lines; "" for anything else."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if value != value else f"{value:.0f}" if value.is_integer() else str(value)
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(field_text, value)))
    return ""


def _whole(value: Any) -> Any:
    """Returns a float that is a whole number as an int: tables with missing values hold ids as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
