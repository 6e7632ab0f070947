"""PubMed XML reader: a PubmedArticleSet of any DTD year, or the older MedlineCitationSet.

`pubmed_scanner` splits the file into records, which are parsed one by one; `pubmed_record` converts them to documents.
Elements that no document uses, such as authors and references, are cut out before; damage inside them costs nothing.
No DTD is read, and the parser accepts no entities other than the five of XML.

Reasons:

- dropped records: `no_text` (neither title nor abstract), `title_alone` (a title without an abstract; see
  `ReadOptions.titles_alone`), `malformed_xml` (not well-formed), `long_record` (longer than
  `ReadErrors.max_line_bytes`);
- files: `truncated_xml` (ends inside a record or before the end tag of its root), `not_pubmed_xml` (no record),
  `entity_declaration` (declares entities; the whole file is dropped);
- kept documents: `repaired_utf8` (bytes that are not UTF-8 were replaced), `repaired_encoding` (converted from the
  declared encoding or from Windows-1252; or the declared encoding is unknown), `repaired_entities` (HTML entities,
  which XML does not define, were replaced by their characters), `repaired_characters` (control characters, which XML
  forbids, were removed).

A prefix of names that is not declared in the record changes nothing in the text and is not counted.
"""

from __future__ import annotations

import contextlib
import functools
import html.entities
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lxml import etree

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import (
    BOTH,
    REPAIRED_PREFIX,
    Document,
    ReadErrors,
    ReadOptions,
    parse_positive_int,
)
from electramed_jax.data.readers.notation import mathml
from electramed_jax.data.readers.pubmed import pubmed_record, pubmed_scanner
from electramed_jax.data.readers.pubmed.pubmed_scanner import RecordTags

_NAMED_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_XML_ENTITIES = {b"amp", b"lt", b"gt", b"quot", b"apos"}
_FORBIDDEN_CHARACTER = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01])|x0*(?:[0-8bcef]|1[0-9a-f]|d[89a-f]..));",
    re.IGNORECASE,
)
_PREFIX = re.compile(rb"</?([A-Za-z_][\w.-]*):|\s([A-Za-z_][\w.-]*):[\w.-]+\s*=")
_DECLARED_PREFIX = re.compile(rb"\sxmlns:([A-Za-z_][\w.-]*)\s*=")
_ROOT_START = re.compile(rb"<[\w.-]+")
# Elements that no document uses, two thirds of PubMed's bytes: the start of the start tag of each, and its end tag.
_UNUSED = tuple(
    (b"<" + name, b"</" + name + b">")
    for name in (b"ReferenceList", b"MeshHeadingList", b"CommentsCorrectionsList", b"ChemicalList", b"AuthorList")
)
_PUBMED_DATA = (b"<PubmedData", b"</PubmedData>")


def read(errors: ReadErrors, options: ReadOptions, deletions: list[int]) -> Iterator[Document]:
    """Yields the documents of the file `errors.path`; appends the PMIDs that it withdraws to `deletions`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    yield from parse(byte_stream.read_chunks(errors), errors, options, deletions)


def parse(
    chunks: Iterator[bytes], errors: ReadErrors, options: ReadOptions, deletions: list[int]
) -> Iterator[Document]:
    """Yields the documents of a file given as chunks of bytes; see `read`."""
    # The identifiers of an article are in PubmedData; they are read only to find its full text.
    unused = _UNUSED if options.full_text != BOTH else (_PUBMED_DATA, *_UNUSED)
    for record in parse_records(chunks, errors, shorten=functools.partial(_remove_unused, unused=unused)):
        if "}" in record.tag:
            remove_namespaces(record)
        if record.tag in ("DeleteCitation", "DeleteDocument"):
            deletions += filter(None, (parse_positive_int(pmid.text) for pmid in record.iter("PMID")))
        else:
            yield from pubmed_record.parse_record(record, errors, options)


def parse_records(
    chunks: Iterator[bytes],
    errors: ReadErrors,
    tags: RecordTags = pubmed_scanner.PUBMED,
    shorten: Callable[[bytes], bytes] | None = None,
) -> Iterator[Any]:
    """Yields the elements of the records in a file given as chunks of bytes; damaged ones are counted.

    Args:
      chunks: the bytes of the file.
      errors: damage is counted here.
      tags: the elements that are records.
      shorten: removes parts of a record that need no parsing; a record that is not well-formed without them is parsed
        whole.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )
    for data, line in pubmed_scanner.split_records(chunks, errors, tags):
        if shorten is not None:
            with contextlib.suppress(etree.XMLSyntaxError):
                record = etree.fromstring(shorten(data), parser)
                errors.used_bytes += len(data)
                yield record
                continue
        try:
            record = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            repaired, repairs = _repair(data, errors)
            try:
                record = etree.fromstring(repaired, parser)
            except etree.XMLSyntaxError:
                errors.report_damaged("malformed_xml", line, f"record is not well-formed ({error.msg})")
                continue
            for name, detail in repairs.items():
                errors.report_damaged(REPAIRED_PREFIX + name, line, detail)
        errors.used_bytes += len(data)
        yield record


def _remove_unused(data: bytes, unused: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Returns a record without the elements `unused`: start of the start tag and end tag of each."""
    if pubmed_scanner.has_opaque(data, 0, len(data)):
        return data  # a comment or CDATA may contain tags
    for start_tag, end_tag in unused:
        end = data.rfind(end_tag)
        start = data.rfind(start_tag, 0, end) if end >= 0 else -1
        # Not if there is another one, perhaps without its end tag.
        if start >= 0 and data[start + len(start_tag)] in b" >" and data.find(start_tag, 0, start) < 0:
            data = data[:start] + data[end + len(end_tag) :]
    return data


def _repair(data: bytes, errors: ReadErrors) -> tuple[bytes, dict[str, str]]:
    """Makes the unambiguous repairs of a record; returns it and {repair: description}."""
    repairs = {}
    text, repair = byte_stream.decode(data, errors)
    if repair:
        repairs[repair] = "bytes that are not UTF-8"
    decoded = text.encode("utf-8")
    repaired = _NAMED_ENTITY.sub(_character_reference, decoded)
    if repaired != decoded:
        repairs["entities"] = "HTML entities, which XML does not define"
    cleaned = _FORBIDDEN_CHARACTER.sub(b"", repaired)
    if cleaned != repaired:
        repairs["characters"] = "control characters, which XML forbids"
    return _declare_prefixes(cleaned), repairs


def _declare_prefixes(data: bytes) -> bytes:
    """Declares the prefixes that a record uses and does not declare: PubMed's DTD or the root of the file does."""
    used = {element or attribute for element, attribute in _PREFIX.findall(data)} - {b"xml", b"xmlns"}
    used -= set(_DECLARED_PREFIX.findall(data[: data.find(b">") + 1]))
    declarations = b"".join(b' xmlns:%b="urn:prefix:%b"' % (prefix, prefix) for prefix in sorted(used))
    return _ROOT_START.sub(lambda name: name[0] + declarations, data, count=1)


def remove_namespaces(record: Any) -> None:
    """Removes the namespaces from the names of an element and of all inside it."""
    for element in record.iter(etree.Element):
        element.tag = mathml.local_name(element)


def _character_reference(entity: re.Match[bytes]) -> bytes:
    characters = html.entities.html5.get(f"{entity[1].decode('ascii')};")
    if entity[1] in _XML_ENTITIES or characters is None:
        return entity[0]
    return "".join(f"&#{ord(character)};" for character in characters).encode("ascii")
