"""Entities as CoNLL lines, one word each, and as a CSV table, one entity each."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.output.annotated_document import AnnotatedDocument, Passage

CSV_COLUMNS = ("id", "pmid", "start", "end", "text", "type", "confidence")
DOCUMENT_MARK = "-DOCSTART-"
_WORD = re.compile(r"\w+|[^\w\s]")  # a word ends at white space, and each punctuation mark is a word


def write_conll(documents: Iterable[AnnotatedDocument], _model: str = "") -> Iterator[str]:
    """Yields lines "word, start, end, IOB2 tag" with tabs, an empty line after each passage.

    The line before a document is its mark and its id. `electramed finetune` reads the files: first and last column.
    """
    for document, parts in documents:
        lines = [f"{DOCUMENT_MARK}\t{' '.join(document.id.split())}\n"]
        for passage, found in parts:
            words = list(_tagged_words(passage, found))
            lines += [f"{word}\t{start}\t{start + len(word)}\t{tag}\n" for word, start, tag in words]
            lines += ["\n"] if words else []
        yield "".join(lines)


def _tagged_words(passage: Passage, entities: Sequence[EntitySpan]) -> Iterator[tuple[str, int, str]]:
    """Yields (word, first character in the document, tag). A word that an entity begins or ends in is cut there."""
    marks = {0, len(passage.text)} | {place - passage.start for one in entities for place in (one.start, one.stop)}
    ordered = iter(sorted(entities))
    entity = next(ordered, None)
    begun = False
    for start, stop in itertools.pairwise(sorted(marks)):
        place = passage.start + start
        if entity is not None and place >= entity.stop:
            entity, begun = next(ordered, None), False
        inside = entity if entity is not None and entity.start <= place else None
        for match in _WORD.finditer(passage.text, start, stop):
            tag = "O" if inside is None else f"{'I' if begun else 'B'}-{inside.type}"
            begun = inside is not None
            yield match[0], passage.start + match.start(), tag


def write_csv(documents: Iterable[AnnotatedDocument], _model: str = "") -> Iterator[str]:
    """Yields the header and a row for each entity, with `CSV_COLUMNS`."""
    yield csv_line(CSV_COLUMNS)
    for document, parts in documents:
        text = document.text
        for _, found in parts:
            for one in found:
                mention = text[one.start : one.stop]
                row = (document.id, document.pmid or "", one.start, one.stop, mention, one.type)
                yield csv_line((*row, f"{one.confidence:.6f}"))


def csv_line(values: Iterable[object]) -> str:
    """Returns one record of a CSV file, quoted where necessary."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
