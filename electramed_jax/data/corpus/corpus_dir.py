"""Format of a documents folder: cleaned, deduplicated, split text, one part per input.

DIR/train/part-00000.jsonl.gz   one document per line; parts in the order of the inputs
DIR/validation/..., DIR/test/...
DIR/documents.json              counts of what was read, kept and dropped (`stats`); written last
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, BinaryIO, TypedDict

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values
from electramed_jax.data.readers import jsonl
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions

FILE = "documents.json"
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
PART_SUFFIX = ".jsonl.gz"
# Keys of the lines of articles, those with a `Document.kind`. In JSON, no string contains the mark unescaped.
_ARTICLE_KEYS = ("pmcid", "doi", "license", "kind", "abstract_sections")
_ARTICLE_MARK = b', "abstract_sections": '
_MARK_BYTES = len(_ARTICLE_MARK) + 8  # at the end of a line: the mark, a number and the closing bracket
_PADDING = b', "pmcid": "", "doi": "", "license": "", "kind": "", "abstract_sections": 0}\n'
_NAME = re.compile("[a-z][a-z0-9_]{0,63}")
_PUBMED_FORMATS = {"pubmed_xml", "medline", "prepared", "jsonl"}  # JSONL files had this name before there were others
_GZIP_LEVEL = 5  # level 6 takes 67 % longer for 1 % less
_ADVICE = "prepare the documents again"


class InputInfo(TypedDict):
    """One input of documents.json: its name, and the number of its records that were kept."""

    file: str
    kept: int


class SplitInfo(TypedDict):
    """Size of one split: number of documents, and bytes of their text."""

    documents: int
    bytes: int


class DroppedByEvaluation(TypedDict):
    """Documents that match an evaluation file by PMID, and by a sentence."""

    pmid: int
    sentence: int


class EvaluationInfo(TypedDict):
    """One evaluation file of documents.json."""

    file: str
    held_out: DroppedByEvaluation


class DocumentsInfo(TypedDict):
    """The keys of documents.json that are read; see `stats.corpus_stats`."""

    format_version: int
    request: dict[str, Any]
    splits: dict[str, SplitInfo]
    dropped: dict[str, int]
    repaired: dict[str, int]
    exclude: list[EvaluationInfo]
    inputs: list[InputInfo]


class Texts:
    """Iterates over the texts of one split; each iteration reads the files again.

    Raises:
      UserError: no finished documents folder.
    """

    def __init__(self, directory: str, split: str = "train"):
        self._parts = [part_path(directory, split, n) for n in range(len(read_documents_info(directory)["inputs"]))]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            for document in read_part(part):
                yield document.text


def check_name(name: str) -> None:
    """Checks the name of a corpus, which begins the names of packed files.

    Raises:
      UserError: it is no such name.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"name={name!r}: wanted lower-case letters, digits and _, a letter first, such as pmc_full_texts"
        )


def corpus_name(info: dict[str, Any]) -> str:
    """Returns the name of a corpus from its documents.json: the given one, or "pubmed" if all inputs are PubMed's."""
    if name := info.get("request", {}).get("name"):
        return name
    formats = {format for row in info["inputs"] for format in row.get("formats", {})}
    return "pubmed" if formats <= _PUBMED_FORMATS else "corpus"


def part_path(directory: str, split: str, number: int) -> str:
    """Returns the path of the part of a split from input `number`."""
    return files.join(directory, split, part_name(number))


def part_name(number: int) -> str:
    """Returns the file name of the part from input `number`."""
    return f"part-{number:05d}{PART_SUFFIX}"


def read_part(path: str) -> Iterator[Document]:
    """Yields the documents of one part.

    Raises:
      UserError: at the end, if the part is damaged.
    """
    damage: Counter[str] = Counter()
    # A line can be longer here than in the input: JSON escapes characters, U+FFFD has three bytes.
    errors = ReadErrors(path, damage, strict=False, max_line_bytes=sys.maxsize, max_expansion=math.inf)
    yield from jsonl.read(errors, ReadOptions())
    if damage:
        raise UserError(f"{path}: damaged ({dict(damage)}); prepare the documents again")


def read_documents_info(directory: str) -> dict[str, Any]:
    """Returns the contents of documents.json.

    Raises:
      UserError: no documents.json, another format version, or a missing part.
    """
    path = files.join(directory, FILE)
    if not files.exists(path):
        raise UserError(
            f"{directory}: no {FILE}: not a documents folder, or electramed prepare did not finish; run it again"
        )
    info = files.read_json(path, dict[str, Any], advice=_ADVICE)
    version = info.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: got format_version {version!r}, wanted {FORMAT_VERSION}; {_ADVICE}")
    json_values.convert(info, DocumentsInfo, path, advice=_ADVICE)
    if absent := [split for split in SPLITS if split not in info["splits"]]:
        raise UserError(f"{path}: no split named {absent[0]}; {_ADVICE}")
    for split in SPLITS:
        folder = files.join(directory, split)
        existing = files.list_dir(folder) if files.is_dir(folder) else []  # one request for all parts
        wanted = {part_name(number) for number in range(len(info["inputs"]))}
        if missing := wanted.difference(existing):
            part = files.join(folder, min(missing))
            raise UserError(f"{part}: missing; prepare the documents again")
    return info


def assign_split(document: Document, validation: float, test: float) -> str:
    """Returns the split of a document: a function of its PMID, or of its id if there is no PMID.

    The split does not depend on the other documents.
    """
    key = f"pmid:{document.pmid}" if document.pmid else document.id
    fraction = stable_hash(key) / 2**64
    return "test" if fraction < test else "validation" if fraction < test + validation else "train"


def stable_hash(text: str | bytes) -> int:
    """Returns a 64-bit hash that is the same on every machine and in every version."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def to_line(document: Document) -> bytes:
    """Converts a document to one line of JSON for the `jsonl` reader.

    Unknown values are 0 or "", not null: Arrow, and with it Hugging Face `datasets`, infers the type of a column from
    the first lines. The identifiers and the licence are written for a document that has a `kind`; `pad_line` adds them
    to the other lines of the same folder.
    """
    record = {
        "id": document.id,
        "pmid": document.pmid or 0,
        "year": document.year or 0,
        "source": document.source,
        "title": document.title,
        "sections": document.sections,
        "language": document.language or "",
        "version": document.version,
        "revised": document.revised or 0,
    }
    if document.kind:
        record |= {name: getattr(document, name) for name in _ARTICLE_KEYS}
    return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"


def is_article_line(line: bytes) -> bool:
    """Returns whether a line has the identifiers of an article."""
    return _ARTICLE_MARK in line[-_MARK_BYTES:]


def pad_line(line: bytes) -> bytes:
    """Adds the identifiers of an article, empty, to a line without them: all lines of a folder have the same keys."""
    return line if is_article_line(line) else line[:-2] + _PADDING


def without_abstract(line: bytes) -> bytes:
    """Returns the line of a full text without its title and abstract."""
    document = from_line(line)
    sections = document.sections[document.abstract_sections :]
    return to_line(dataclasses.replace(document, title="", sections=sections, abstract_sections=0))


def from_line(line: bytes) -> Document:
    """Converts a line of `to_line` back to the document."""
    record = json.loads(line)
    unknown = {name: record[name] or None for name in ("pmid", "year", "language", "revised")}
    return Document(**record | unknown | {"sections": tuple(map(tuple, record["sections"]))})


class PartWriter:
    """Writes one part. The bytes depend only on the lines: no time or name is stored.

    Attributes:
      documents: number of lines.
      bytes: size of the lines, uncompressed.
      sha256: of the file, hexadecimal; set on exit.
    """

    def __init__(self, path: str):
        self.documents, self.bytes, self.sha256 = 0, 0, ""
        self._path, self._stack = path, contextlib.ExitStack()

    def __enter__(self) -> PartWriter:
        self._hashing_file = _HashingFile(self._stack.enter_context(files.atomic_write(self._path)))
        self._file = self._stack.enter_context(gzip_writer(self._hashing_file, _GZIP_LEVEL))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        self.sha256 = self._hashing_file.digest.hexdigest()

    def write(self, line: bytes) -> None:
        """Appends a line of `to_line`."""
        self._file.write(line)
        self.documents += 1
        self.bytes += len(line)

    def stats(self) -> dict[str, Any]:
        """Returns {"documents", "bytes", "sha256"} of the complete part."""
        return {"documents": self.documents, "bytes": self.bytes, "sha256": self.sha256}


def gzip_writer(file: BinaryIO | _HashingFile, level: int) -> gzip.GzipFile:
    """Opens a compressor that writes to `file`. The bytes depend only on the data."""
    return gzip.GzipFile("", "wb", level, fileobj=file, mtime=0)


class _HashingFile:
    """Writes to a file and computes the SHA-256 of the data."""

    def __init__(self, file: BinaryIO):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
