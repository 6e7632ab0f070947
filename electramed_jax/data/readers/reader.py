"""PubMed XML, JSONL and plain text as one stream of documents.

Damage costs no more than it must: each unusable piece is counted under a named reason in `drops`
and the rest of the file is used. Reasons: `bad_json` (line is not JSON), `bad_record` (JSON without
a string `text`), `truncated_gzip`, `damaged_gzip`, and those of `pubmed`. Bytes that are not UTF-8
do not cost a document: they are replaced (the tokenizer drops the replacement character) and the
document is counted under `repaired_utf8`.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers.document import (
    REPAIRED,
    TFDS,
    Document,
    PubmedOptions,
    ReadErrors,
    parse_positive_int,
    text_id,
)

_CHUNK_BYTES = 1 << 20


def find_inputs(patterns: Iterable[str]) -> list[str]:
    """What `read_documents` takes, an input each, sorted: the files that match, and of TFDS datasets the shards.

    Raises:
      UserError: a pattern that matches nothing, a dataset that is not prepared (see `tfds_source`).
    """
    patterns = list(patterns)
    found = files.glob(pattern for pattern in patterns if not pattern.startswith(TFDS))
    for name in (pattern for pattern in patterns if pattern.startswith(TFDS)):
        from electramed_jax.data.readers import tfds_reader

        found += tfds_reader.shards(name)
    return sorted(set(found))


def size(path: str) -> int:
    """Bytes of the file behind a name that `find_inputs` gave."""
    if path.startswith(TFDS):
        from electramed_jax.data.readers import tfds_reader

        path = tfds_reader.path_of(path)
    return files.size(path)


def read_documents(
    path: str,
    drops: Counter,
    strict: bool = False,
    reading: PubmedOptions = PubmedOptions(),
    deletions: list[int] | None = None,
) -> Iterator[Document]:
    """Streams the documents of one file, chosen by its extension (with or without .gz).

    .xml: PubMed's. .jsonl: an object a line with `text` (or `sections`), and `title`, `id`,
    `pmid`, `year`, `source` where known. .txt: documents separated by blank lines. `tfds:...`: a
    shard of a dataset (see `tfds_source`).

    Args:
      drops: what was dropped is added here, by reason.
      strict: raise at the first damaged piece.
      reading: of PubMed records; the other formats have no choices.
      deletions: PMIDs the file withdraws (DeleteCitation) are added here.

    Raises:
      UserError: missing file, unknown extension; when strict, damage, with file and line.
    """
    if path.startswith(TFDS):
        from electramed_jax.data.readers import tfds_reader

        yield from tfds_reader.read(path)
        return
    name = os.path.basename(path).lower().removesuffix(".gz")
    findings = ReadErrors(path, drops, strict)
    if name.endswith(".xml"):
        from electramed_jax.data.readers import pubmed_xml as pubmed  # needs lxml, which the other formats do without

        yield from pubmed.read(chunks(findings), findings, reading, deletions)
    elif name.endswith(".jsonl"):
        yield from _read_jsonl(findings)
    elif name.endswith(".txt"):
        yield from _read_text(findings)
    else:
        raise UserError(f"{path}: unknown kind of file; wanted .xml, .jsonl or .txt, or with .gz, or tfds:NAME")


def chunks(findings: ReadErrors) -> Iterator[bytes]:
    """The decompressed bytes of a file, up to where its compression is damaged."""
    with files.open_read(findings.path) as raw:
        if not findings.path.lower().endswith(".gz"):
            while chunk := raw.read(_CHUNK_BYTES):
                yield chunk
            return
        stream = gzip.GzipFile(fileobj=raw)
        try:
            # read1 hands over what could be read before it meets the damage; read would not.
            while chunk := stream.read1(_CHUNK_BYTES):
                yield chunk
        except EOFError:
            findings.cut = True
            findings.damaged("truncated_gzip", 0, "gzip data ends early")
        except (gzip.BadGzipFile, zlib.error) as error:
            findings.cut = True
            findings.damaged("damaged_gzip", 0, f"gzip data is damaged ({error})")


def _lines(findings: ReadErrors) -> Iterator[tuple[int, str, bool]]:
    """(line number, line, whether bytes were replaced); without line ends."""
    number, rest = 0, b""
    for chunk in chunks(findings):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            yield number, *_decode(line)
    if rest and not findings.cut:
        yield number + 1, *_decode(rest)


def _decode(line: bytes) -> tuple[str, bool]:
    try:
        return line.decode("utf-8"), False
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace"), True


def _read_jsonl(findings: ReadErrors) -> Iterator[Document]:
    source = os.path.basename(findings.path)
    for number, line, repaired in _lines(findings):
        line = line.removeprefix("\ufeff")
        if not line.strip():
            continue
        if repaired:
            findings.damaged(f"{REPAIRED}utf8", number, "bytes that are not UTF-8")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            findings.damaged("bad_json", number, "not valid JSON")
            continue
        document = _from_record(record, source)
        if document is None:
            findings.damaged("bad_record", number, 'wanted an object with "text", a string')
        else:
            yield document


def _from_record(record: Any, source: str) -> Document | None:
    if not isinstance(record, dict):
        return None
    sections = record.get("sections")
    if sections is None:
        sections = [[None, record.get("text")]]
    try:
        pairs = tuple((label, text) for label, text in sections)
    except (TypeError, ValueError):
        return None
    if not all(isinstance(text, str) and isinstance(label, str | None) for label, text in pairs):
        return None
    title = record.get("title")
    document = Document(
        id=str(record.get("id") or ""),
        pmid=parse_positive_int(record.get("pmid")),
        title=title if isinstance(title, str) else "",
        sections=pairs,
        year=parse_positive_int(record.get("year")),
        source=str(record.get("source") or source),
        language=language if isinstance(language := record.get("language"), str) and language else None,
        version=parse_positive_int(record.get("version")) or 1,
        revised=parse_positive_int(record.get("revised")),
    )
    return document if document.id else dataclasses.replace(document, id=text_id(document.text))


def _read_text(findings: ReadErrors) -> Iterator[Document]:
    source = os.path.basename(findings.path)
    lines: list[str] = []
    damaged, number = False, 0
    for number, line, repaired in _lines(findings):
        damaged |= repaired
        if line.strip():
            lines.append(line)
        elif lines:
            yield _from_lines(lines, damaged, number, findings, source)
            lines, damaged = [], False
    if lines and not findings.cut:
        yield _from_lines(lines, damaged, number, findings, source)


def _from_lines(lines: list[str], damaged: bool, number: int, findings: ReadErrors, source: str) -> Document:
    if damaged:
        findings.damaged(f"{REPAIRED}utf8", number, "bytes that are not UTF-8")
    text = "\n".join(lines)
    return Document(text_id(text), None, "", ((None, text),), None, source)
