"""BioC JSON reader: a collection, a list of collections, or documents one by one; see `bioc_passages`.

Reasons: `no_text`, `bad_json` (not JSON from here on), `bad_record` (a document without passages).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.exports import bioc_passages
from electramed_jax.data.readers.tables import json_values

_LISTS = frozenset({"documents", "PubTator3"})


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for value in json_values.read_values(errors, _LISTS):
        yield from _documents(value, errors, options)


def _documents(value: Any, errors: ReadErrors, options: ReadOptions) -> Iterator[Document]:
    if isinstance(value, dict) and isinstance(inner := value.get("documents"), list):
        for document in inner:
            yield from _documents(document, errors, options)
        return
    passages = value.get("passages") if isinstance(value, dict) else None
    if not isinstance(passages, list):
        errors.report_damaged("bad_record", 0, "BioC document without passages")
        return
    pairs = [(_infons(passage), _text(passage)) for passage in passages if isinstance(passage, dict)]
    name = json_values.to_text(value.get("pmcid") or value.get("id")).strip()
    document = bioc_passages.to_document(name, _infons(value), pairs, options)
    if document.title or document.sections:
        yield document
    else:
        errors.count_dropped("no_text")


def _infons(value: dict[str, Any]) -> dict[str, Any]:
    infons = value.get("infons")
    return infons if isinstance(infons, dict) else {}


def _text(passage: dict[str, Any]) -> str:
    if text := json_values.to_text(passage.get("text")):
        return text
    sentences = passage.get("sentences")
    if not isinstance(sentences, list):
        return ""
    return " ".join(json_values.to_text(s.get("text")) for s in sentences if isinstance(s, dict) and s.get("text"))
