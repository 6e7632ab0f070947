"""PubMed XML reader: a PubmedArticleSet of any DTD year, or the older MedlineCitationSet.

`pubmed_scanner` splits the file into records, which are parsed one by one; `pubmed_record` converts them to documents.
No DTD is read, and the parser accepts no entities other than the five of XML.

Reasons:

- dropped records: `no_text` (neither title nor abstract), `title_alone` (a title without an abstract; see
  `PubmedOptions.titles_alone`), `malformed_xml` (not well-formed);
- files: `truncated_xml` (ends inside a record or before the end tag of its root), `not_pubmed_xml` (no record),
  `entity_declaration` (declares entities; the whole file is dropped);
- kept documents: `repaired_utf8` (bytes that are not UTF-8 were replaced), `repaired_entities` (HTML entities, which
  XML does not define, were replaced by their characters).
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator

from lxml import etree

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import (
    REPAIRED_PREFIX,
    Document,
    PubmedOptions,
    ReadErrors,
    parse_positive_int,
)
from electramed_jax.data.readers.pubmed import pubmed_record, pubmed_scanner

_NAMED_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_XML_ENTITIES = {b"amp", b"lt", b"gt", b"quot", b"apos"}
# PubMed's DTD, which is not read, declares this prefix for formulas.
_MATHML_NAMESPACE = b' xmlns:mml="http://www.w3.org/1998/Math/MathML"'
_ROOT_START = re.compile(rb"<\w+")


def read(errors: ReadErrors, options: PubmedOptions, deletions: list[int]) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`; appends the PMIDs that it withdraws to `deletions`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    yield from parse(byte_stream.read_chunks(errors), errors, options, deletions)


def parse(
    chunks: Iterator[bytes], errors: ReadErrors, options: PubmedOptions, deletions: list[int]
) -> Iterator[Document]:
    """Yields the documents of a file given as chunks of bytes; see `read`."""
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    for data, line in pubmed_scanner.split_records(chunks, errors):
        try:
            record = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            repaired, repairs = _repair(data)
            try:
                record = etree.fromstring(repaired, parser)
            except etree.XMLSyntaxError:
                errors.report_damaged("malformed_xml", line, f"record is not well-formed ({error.msg})")
                continue
            for name, detail in repairs.items():
                errors.report_damaged(REPAIRED_PREFIX + name, line, detail)
        if record.tag in ("DeleteCitation", "DeleteDocument"):
            deletions += filter(None, (parse_positive_int(pmid.text) for pmid in record.iter("PMID")))
        else:
            yield from pubmed_record.parse_record(record, errors, options)


def _repair(data: bytes) -> tuple[bytes, dict[str, str]]:
    """Makes the unambiguous repairs of a record; returns it and {repair: description}."""
    repairs = {}
    decoded = data.decode("utf-8", "replace").encode("utf-8")
    if decoded != data:
        repairs["utf8"] = "bytes that are not UTF-8"
    repaired = _NAMED_ENTITY.sub(_character_reference, decoded)
    if repaired != decoded:
        repairs["entities"] = "HTML entities, which XML does not define"
    if b"<mml:" in data:
        repaired = _ROOT_START.sub(lambda name: name[0] + _MATHML_NAMESPACE, repaired, count=1)
    return repaired, repairs


def _character_reference(entity: re.Match[bytes]) -> bytes:
    characters = html.entities.html5.get(f"{entity[1].decode('ascii')};")
    if entity[1] in _XML_ENTITIES or characters is None:
        return entity[0]
    return "".join(f"&#{ord(character)};" for character in characters).encode("ascii")
