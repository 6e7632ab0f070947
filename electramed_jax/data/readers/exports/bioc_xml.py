"""BioC XML reader: splits a collection into documents, which are parsed one by one; see `bioc_passages`.

Reasons:

- dropped documents: `no_text`, `malformed_xml`, `long_record`;
- files: `truncated_xml`, `not_bioc_xml` (no document), `entity_declaration` (the whole file is dropped);
- kept documents: the repairs of `pubmed_xml`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.exports import bioc_passages
from electramed_jax.data.readers.pubmed import pubmed_scanner, pubmed_xml

_RECORDS = pubmed_scanner.RecordTags((b"document",), "not_bioc_xml", "contains no BioC document")


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for record in pubmed_xml.parse_records(byte_stream.read_chunks(errors), errors, _RECORDS):
        if "}" in record.tag:
            pubmed_xml.remove_namespaces(record)
        name = " ".join((record.findtext("id") or "").split())
        passages = [(_infons(passage), _text(passage)) for passage in record.iterfind("passage")]
        document = bioc_passages.to_document(name, _infons(record), passages, options)
        if document.title or document.sections:
            yield document
        else:
            errors.count_dropped("no_text")


def _infons(element: Any) -> dict[str, str]:
    return {infon.get("key") or "": infon.text or "" for infon in element.iterfind("infon")}


def _text(passage: Any) -> str:
    if text := passage.findtext("text"):
        return text
    return " ".join(text for sentence in passage.iterfind("sentence") if (text := sentence.findtext("text")))
