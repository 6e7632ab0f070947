"""The contract of a documents folder: cleaned, deduplicated, split text, one part per input file.

DIR/train/part-00000.jsonl.gz   one document a line; parts in the order of the inputs
DIR/validation/..., DIR/test/...
DIR/documents.json              the account of what was read, kept and dropped; written last
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document

FILE = "documents.json"
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
PART_SUFFIX = ".jsonl.gz"
_GZIP_LEVEL = 5  # 6 takes two thirds longer for one hundredth less


class Texts:
    """The texts of one split, read anew each time it is walked.

    Raises:
      UserError: no finished documents folder.
    """

    def __init__(self, directory: str, split: str = "train"):
        self._parts = [part_path(directory, split, n) for n in range(len(read_documents_info(directory)["inputs"]))]

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            for document in read_part(part):
                yield document.text


def part_path(directory: str, split: str, number: int) -> str:
    """The part of a split that came from input `number`."""
    return files.join(directory, split, part_name(number))


def part_name(number: int) -> str:
    """The file name of the part that came from input `number`."""
    return f"part-{number:05d}{PART_SUFFIX}"


def read_part(path: str) -> Iterator[Document]:
    """The documents of one part.

    Raises:
      UserError: after the last sound one, if any was not.
    """
    damage: Counter = Counter()
    yield from reader.read_documents(path, damage)
    if damage:
        raise UserError(f"{path}: damaged ({dict(damage)}); prepare the documents again")


def read_documents_info(directory: str) -> dict[str, Any]:
    """The account of a finished documents folder.

    Raises:
      UserError: no account, one of another version, or a missing part.
    """
    path = files.join(directory, FILE)
    if not files.exists(path):
        raise UserError(
            f"{directory}: no {FILE}: not a documents folder, or preparing did not finish; run electramed prepare"
        )
    account = files.read_json(path)
    version = account.get("format_version") if isinstance(account, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version {version!r}; this program reads {FORMAT_VERSION}; prepare the documents again"
        )
    for split in SPLITS:
        folder = files.join(directory, split)
        there = files.list_dir(folder) if files.is_dir(folder) else []  # one request for all parts
        wanted = {part_name(number) for number in range(len(account["inputs"]))}
        if missing := wanted.difference(there):
            part = files.join(folder, min(missing))
            raise UserError(f"{part}: missing; prepare the documents again")
    return account


def split_of(document: Document, validation: float, test: float) -> str:
    """The split of a document: a hash of its PMID, else of its id, which is made from the text
    where the input gives none. It does not depend on the other documents."""
    key = f"pmid:{document.pmid}" if document.pmid else document.id
    at = stable_hash(key) / 2**64
    return "test" if at < test else "validation" if at < test + validation else "train"


def stable_hash(text: str | bytes) -> int:
    """64 bits that are the same on every machine and in every version."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


def to_line(document: Document) -> bytes:
    """A document as one line of JSON, as `documents.read` takes it.

    What is not known is 0 or "", not null: programs that infer a column's type from the first lines
    (Arrow, and with it Hugging Face's `datasets`) could not read a later value.
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
    return json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n"


def from_line(line: bytes) -> Document:
    """The document that `to_line` wrote."""
    record = json.loads(line)
    return Document(**record | {"sections": tuple(map(tuple, record["sections"]))})


class PartWriter:
    """Writes the lines of one part; its bytes depend on nothing but these: no time, no name.

    Attributes:
      documents: lines so far; bytes: their size; sha256: of the file, hexadecimal, when it is complete.
    """

    def __init__(self, path: str):
        self.documents, self.bytes, self.sha256 = 0, 0, ""
        self._path, self._stack = path, contextlib.ExitStack()

    def __enter__(self) -> PartWriter:
        self._hashed = _Hashed(self._stack.enter_context(files.atomic_write(self._path)))
        self._file = self._stack.enter_context(gzip_writer(self._hashed, _GZIP_LEVEL))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)
        self.sha256 = self._hashed.digest.hexdigest()

    def write(self, line: bytes) -> None:
        """Appends a line of `to_line`."""
        self._file.write(line)
        self.documents += 1
        self.bytes += len(line)

    def figures(self) -> dict[str, Any]:
        """{"documents", "bytes", "sha256"} of the complete part."""
        return {"documents": self.documents, "bytes": self.bytes, "sha256": self.sha256}


def gzip_writer(file: BinaryIO, level: int) -> gzip.GzipFile:
    """Compresses into `file`; the bytes depend on what is written alone."""
    return gzip.GzipFile("", "wb", level, fileobj=file, mtime=0)


class _Hashed:
    """A file to write to, and the SHA-256 of what was written."""

    def __init__(self, file: BinaryIO):
        self._file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
