"""PubMed's XML as documents: a PubmedArticleSet of any DTD year, or the older MedlineCitationSet.

`pubmed_scan` cuts the file into records, each is parsed by itself, and `pubmed_record` says what
becomes of its parts. No DTD is read and no entity but XML's own five is known to the parser.

Reasons counted, of records dropped: `no_text` (neither title nor abstract), `title_alone` (a title
without an abstract; see `Reading.titles_alone`), `malformed_xml` (not well-formed). Of files:
`truncated_xml` (ends inside a record or before its root is closed), `not_pubmed_xml` (no record in
it), `entity_declaration` (declares entities: refused whole). Of documents kept: `repaired_utf8`
(bytes that are not UTF-8 replaced), `repaired_entities` (HTML's names for characters, which XML
does not know, replaced by what they name).
"""

from __future__ import annotations

import html.entities
import re
from collections.abc import Iterator

from lxml import etree

from electramed_jax.data.readers import pubmed_record, pubmed_scanner
from electramed_jax.data.readers.document import REPAIRED, Document, PubmedOptions, ReadErrors, parse_positive_int

_NAMED_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]*);")
_OF_XML = {b"amp", b"lt", b"gt", b"quot", b"apos"}
# PubMed's DTD, which is not read, binds this prefix wherever a formula uses it.
_MATHML = b' xmlns:mml="http://www.w3.org/1998/Math/MathML"'
_NAME_OF_ROOT = re.compile(rb"<\w+")


def read(
    chunks: Iterator[bytes],
    findings: ReadErrors,
    reading: PubmedOptions = PubmedOptions(),
    deletions: list[int] | None = None,
) -> Iterator[Document]:
    """Documents of a file given as bytes; PMIDs it withdraws are added to `deletions`.

    Raises:
      UserError: only when `findings` is strict.
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
    for data, line in pubmed_scanner.records(chunks, findings):
        try:
            record = etree.fromstring(data, parser)
        except etree.XMLSyntaxError as error:
            mended, repairs = _mended(data)
            try:
                record = etree.fromstring(mended, parser)
            except etree.XMLSyntaxError:
                findings.damaged("malformed_xml", line, f"record is not well-formed ({error.msg})")
                continue
            for name, detail in repairs.items():
                findings.damaged(REPAIRED + name, line, detail)
        if record.tag in ("DeleteCitation", "DeleteDocument"):
            if deletions is not None:
                deletions += filter(None, (parse_positive_int(pmid.text) for pmid in record.iter("PMID")))
        else:
            yield from pubmed_record.read(record, findings, reading)


def _mended(data: bytes) -> tuple[bytes, dict[str, str]]:
    """The record with what can be mended without guessing, and {repair: what was found}."""
    repairs = {}
    mended = data.decode("utf-8", "replace").encode("utf-8")
    if mended != data:
        repairs["utf8"] = "bytes that are not UTF-8"
    with_characters = _NAMED_ENTITY.sub(_character_reference, mended)
    if with_characters != mended:
        repairs["entities"] = "HTML's names of characters, which XML does not know"
    if b"<mml:" in data:
        with_characters = _NAME_OF_ROOT.sub(lambda name: name[0] + _MATHML, with_characters, count=1)
    return with_characters, repairs


def _character_reference(entity: re.Match[bytes]) -> bytes:
    characters = html.entities.html5.get(f"{entity[1].decode('ascii')};")
    if entity[1] in _OF_XML or characters is None:
        return entity[0]
    return "".join(f"&#{ord(character)};" for character in characters).encode("ascii")
