"""A document with its predicted entities, passage by passage: what the writers of all formats receive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from electramed_jax.data.readers.document import Document
from electramed_jax.finetune.ner.entity_spans import EntitySpan


class Passage(NamedTuple):
    """A title or a section; `text` begins at character `start` of the document's text."""

    type: str
    label: str | None
    start: int
    text: str


# A document and the entities of each passage, at characters of the document's text.
AnnotatedDocument = tuple[Document, Sequence[tuple[Passage, Sequence[EntitySpan]]]]


def passages(document: Document) -> list[Passage]:
    """Returns title and sections of a document, without section labels."""
    found, start = [], 0
    if document.title:
        found.append(Passage("title", None, 0, document.title))
        start = len(document.title) + 1
    for label, body in document.sections:
        start += len(f"{label}: ") if label else 0
        found.append(Passage("abstract" if document.title else "text", label, start, body))
        start += len(body) + 1
    return found
