"""Entities in brat's standoff format: NAME.txt with the text of a document, and NAME.ann with a line for each entity.

Source of the format: https://brat.nlplab.org/standoff.html. brat knows no scores of entities: they are notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from electramed_jax.finetune.output.annotated_document import AnnotatedDocument

_MAX_NAME = 100  # characters


def write_brat(documents: Iterable[AnnotatedDocument]) -> Iterator[tuple[str, str]]:
    """Yields (file name, content) of both files of each document. NAME is the PMID, or the id in ASCII."""
    used: set[str] = set()
    for document, parts in documents:
        base = name = (
            re.sub(r"[^A-Za-z0-9_.-]", "_", str(document.pmid or document.id))[:_MAX_NAME].strip(".") or "document"
        )
        number = 1
        while name.lower() in used:
            number += 1
            name = f"{base}-{number}"
        used.add(name.lower())
        text = document.text
        entities = [one for _, found in parts for one in found]
        lines = [
            f"T{index}\t{_type(one.type)} {_fragments(text, one.start, one.stop)}\t"
            f"{' '.join(text[one.start : one.stop].splitlines())}\n"
            f"#{index}\tAnnotatorNotes T{index}\tconfidence {one.confidence:.6f}\n"
            for index, one in enumerate(entities, 1)
        ]
        yield f"{name}.txt", text
        yield f"{name}.ann", "".join(lines)


def _type(name: str) -> str:
    """Returns a type without the characters that brat does not allow."""
    return re.sub(r"[^\w-]", "_", name)


def _fragments(text: str, start: int, stop: int) -> str:
    """Returns "START END", or a fragment for each line of an entity that spans lines, separated by semicolons."""
    places = [match.span() for match in re.finditer(r"[^\n\r]+", text[start:stop])]
    return ";".join(f"{start + first} {start + last}" for first, last in places)
