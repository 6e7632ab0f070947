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
        name, infons, passages = "", dict[str, str](), []
        for child in record:
            if child.tag == "passage":
                passages.append(_passage(child))
            elif child.tag == "infon":
                infons[child.get("key") or ""] = child.text or ""
            elif child.tag == "id" and not name:
                name = " ".join((child.text or "").split())
        document = bioc_passages.to_document(name, infons, passages, options)
        if document.title or document.sections:
            yield document
        else:
            errors.count_dropped("no_text")


def _passage(element: Any) -> bioc_passages.Passage:
    infons: dict[str, str] = {}
    text, sentences = "", []
    for child in element:
        if child.tag == "infon":
            infons[child.get("key") or ""] = child.text or ""
        elif child.tag == "text":
            text = text or child.text or ""
        elif child.tag == "sentence" and (sentence := child.findtext("text")):
            sentences.append(sentence)
    return infons, text or " ".join(sentences)
