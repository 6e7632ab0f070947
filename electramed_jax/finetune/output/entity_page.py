"""Entities of documents as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from electramed_jax.finetune.output import view
from electramed_jax.finetune.output.annotated_document import AnnotatedDocument


def write_html(documents: Iterable[AnnotatedDocument], model: str) -> Iterator[str]:
    """Yields a page with a card for each document: its text with the entities marked, and a table of them."""
    yield view.page_start("Predicted entities")
    yield view.note(f"Model: {model}")
    types: list[str] = []  # in the order in which they are found, so that colours do not change within the page
    for document, parts in documents:
        found = sorted(one for _, entities in parts for one in entities)
        types += [kind for kind in dict.fromkeys(one.type for one in found) if kind not in types]
        name = document.id if document.pmid is None else f"PMID {document.pmid}"
        text = document.text
        body = [view.entities(text, found, types), view.entity_legend(found, types), view.entity_table(text, found)]
        yield view.card(name, body)
    yield view.page_end()
