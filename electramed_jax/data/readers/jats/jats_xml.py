"""JATS reader: an article, or a set of articles as PubMed Central's services return it.

The file is split into articles, which are parsed one by one; `jats_article` converts them to documents.

Reasons:

- dropped articles: `no_text`, `title_alone` (a title without abstract and body), `malformed_xml`, `long_record`;
- files: `truncated_xml`, `not_jats_xml` (no article), `entity_declaration` (declares entities; the whole file is
  dropped);
- kept documents: the repairs of `pubmed_xml`.
"""

from __future__ import annotations

from collections.abc import Iterator

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions
from electramed_jax.data.readers.jats import jats_article
from electramed_jax.data.readers.pubmed import pubmed_scanner, pubmed_xml

_RECORDS = pubmed_scanner.RecordTags((b"article",), "not_jats_xml", "contains no article")
_START, _END = b"<ref-list", b"</ref-list>"


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    for article in pubmed_xml.parse_records(byte_stream.read_chunks(errors), errors, _RECORDS, _without_references):
        if "}" in article.tag:
            pubmed_xml.remove_namespaces(article)
        yield from jats_article.parse_article(article, errors, options)


def _without_references(data: bytes) -> bytes:
    """Returns an article without its reference lists, which are a third of its elements and are not read."""
    pieces, position = [], 0
    while (start := data.find(_START, position)) >= 0:
        end, tag_end = data.find(_END, start), data.find(b">", start)
        if end < 0 or data[tag_end - 1 : tag_end] == b"/":
            return data
        pieces.append(data[position:start])
        position = end + len(_END)
    return b"".join([*pieces, data[position:]])
