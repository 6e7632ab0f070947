"""Finds original files below a folder, and makes rows and splits from them."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import Row
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import tables

_SHOWN = 4  # file names in an error


def find_file(folder: str, *patterns: str) -> str:
    """Returns the file below a folder that matches the first pattern with a match, such as "*_corpus.txt".

    Raises:
      UserError: no file matches, or several do.
    """
    listed = split_files.list_files(folder) if files.is_dir(folder) else []
    relative = {path.removeprefix(folder).lstrip("/"): path for path in listed}
    for pattern in patterns:
        matching = [name for name in relative if fnmatch.fnmatchcase(f"/{name}", f"*/{pattern}")]
        if len(matching) > 1:
            raise UserError(f"{folder}: has {' and '.join(sorted(matching)[:_SHOWN])}; leave only one of them")
        if matching:
            return relative[matching[0]]
    some = ", ".join(sorted(relative)[:_SHOWN]) or "nothing"
    raise UserError(f"{folder}: no {' or '.join(patterns)} in it; it has {some}; unpack the original archive there")


def find_folder(folder: str, name: str) -> str:
    """Returns the folder of this path below a folder, at any depth.

    Raises:
      UserError: there is none.
    """
    for path in split_files.list_files(folder) if files.is_dir(folder) else []:
        before, found, _ = path.removeprefix(folder).rpartition(f"/{name}/")
        if found:
            return f"{folder}{before}/{name}"
    raise UserError(f"{folder}: no folder {name}/ in it; unpack the original archive there")


def entity_rows(sentences: Iterable[tuple[str, Sentence]], kinds: dict[str, str] | None = None) -> list[Row]:
    """Returns rows of (id, text with entities).

    Args:
      kinds: type in the file -> type of the corpus; entities of other types are left out. None: all as they are.
    """
    rows = []
    for identifier, sentence in sentences:
        spans = [(s, kinds.get(s.type) if kinds is not None else s.type) for s in sentence.spans]
        entities = [{"start": s.start, "end": s.stop, "type": kind} for s, kind in spans if kind]
        if sentence.words:
            rows.append({"id": identifier, "text": sentence.text, "entities": entities})
    return rows


def tagged_rows(sentences: Iterable[Sentence]) -> list[Row]:
    """Returns rows of words with IOB2 tags."""
    return [
        {"id": str(number), "tokens": list(sentence.words), "ner_tags": list(sentence.tags)}
        for number, sentence in enumerate(sentences)
    ]


def table_rows(path: str, columns: tables.Columns = tables.DEFAULT_COLUMNS) -> list[Row]:
    """Returns rows of a table or JSON file of labelled texts."""
    records, _ = tables.read_table(path, columns)
    return [_text_row(str(record.line), record.text, record.second, record.label) for record in records]


def _text_row(identifier: str, text: str, second: str, label: Any) -> Row:
    texts = {"sentence1": text, "sentence2": second} if second else {"sentence": text}
    return {"id": identifier, **texts, "label": label}


def hash_fraction(identifier: str) -> float:
    """Returns a hash of an identifier, from 0 to 1: the same row is always in the same split."""
    return int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "big") / 2**64


def split_by_hash(rows: Sequence[Row], fraction: float) -> tuple[list[Row], list[Row]]:
    """Returns (the others, about this fraction of the rows); all rows of an id are on one side."""
    held_out = [row for row in rows if hash_fraction(row["id"]) < fraction]
    return [row for row in rows if hash_fraction(row["id"]) >= fraction], held_out
