"""CoNLL files: a word and its tag a line, an empty line after each sentence.

    Selegiline  B-Chemical
    -           O

The word is the first column and the tag the last; what stands between is passed over. Columns are separated by tabs
where a line has one, else by spaces. Lines that begin with -DOCSTART- are passed over.
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
    """Words, their tags as they stand in the file, and the line (from 1) of the first word."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int


def read_sentences(path: str) -> list[Sentence]:
    """The sentences of a file.

    Raises:
      UserError: empty, a line without a tag, or with a tag of no scheme; names file and line.
    """
    sentences: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    first = 0

    def close() -> None:
        if words:
            sentences.append(Sentence(tuple(words), tuple(tags), first))
            words.clear()
            tags.clear()

    for number, line in enumerate(split_files.read_lines(path), 1):
        if not line.strip() or line.startswith(DOCUMENT_MARK):
            close()
            continue
        columns = line.rstrip().split("\t") if "\t" in line.strip() else line.split()
        if len(columns) < 2 or not columns[0].strip():
            split_files.reject_line(path, number, f"{line!r} has one column; wanted a word and its tag")
        if not TAG.fullmatch(columns[-1]):
            split_files.reject_line(
                path, number, f"unknown tag {columns[-1]!r}; wanted O, or B-, I-, E-, S-, L- or U- and a type"
            )
        first = first if words else number
        words.append(columns[0].strip())
        tags.append(columns[-1])
    close()
    if not sentences:
        split_files.reject_line(path, 1, "no sentence in the whole file; wanted a word and its tag a line")
    return sentences
