"""CoNLL files: one word and its tag per line, an empty line after each sentence.

    Selegiline  B-Chemical
    -           O

The word is the first column and the tag the last; columns between them are ignored. Columns are separated by tabs if
the line has one, else by spaces. Lines that begin with -DOCSTART- are ignored.
"""

from __future__ import annotations

import dataclasses
import re

from electramed_jax.finetune.task import split_files

DOCUMENT_MARK = "-DOCSTART-"
# O, or a letter of a scheme alone or with a type after a hyphen.
TAG = re.compile(r"O|[BIESLU](?:-\S.*)?")


@dataclasses.dataclass(frozen=True)
class Sentence:
    """Words, their tags as in the file, and the line (from 1) of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


def read_sentences(path: str) -> list[Sentence]:
    """Reads the sentences of a file.

    Raises:
      UserError: the file is empty, or a line has no tag or an unknown one; names file and line.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    first_line = 0

    def end_sentence() -> None:
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), first_line))
            words.clear()
            tags.clear()

    for number, line in enumerate(split_files.read_lines(path), 1):
        if not line.strip() or line.startswith(DOCUMENT_MARK):
            end_sentence()
            continue
        columns = line.rstrip().split("\t") if "\t" in line.strip() else line.split()
        if len(columns) < 2 or not columns[0].strip():
            split_files.reject_line(path, number, f"{line!r} has one column; wanted a word and its tag")
        if not TAG.fullmatch(columns[-1]):
            split_files.reject_line(
                path, number, f"unknown tag {columns[-1]!r}; wanted O, or B-, I-, E-, S-, L- or U- and a type"
            )
        first_line = first_line if words else number
        words.append(columns[0].strip())
        tags.append(columns[-1])
    end_sentence()
    if not sentences:
        split_files.reject_line(path, 1, "no sentence in the file; wanted one word and its tag per line")
    return sentences
