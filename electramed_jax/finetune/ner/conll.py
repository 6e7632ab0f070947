"""CoNLL files: one word and its tag per line, an empty line after each sentence.

    Selegiline  B-Chemical
    -           O

The word is the first column and the tag the last; columns between them are ignored. Columns are separated by tabs if
the line has one, else by spaces. Lines that begin with -DOCSTART- or ###MEDLINE: (JNLPBA) are ignored. Tags may be
numbers (EBM-NLP).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from electramed_jax.common.storage.json_values import shorten
from electramed_jax.finetune.ner import tags as tag_lib
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.task import split_files

DOCUMENT_MARKS = ("-DOCSTART-", "###MEDLINE:")


def read_sentences(path: str, labels: Sequence[str] = ()) -> list[Sentence]:
    """Reads the sentences of a file.

    Args:
      labels: names of numeric tags, from 0.

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
        if not line.strip() or line.startswith(DOCUMENT_MARKS):
            end_sentence()
            continue
        columns = line.rstrip().split("\t") if "\t" in line.strip() else line.split()
        if len(columns) < 2 or not columns[0].strip():
            split_files.reject_line(path, number, f"{shorten(line)} has one column; wanted a word and its tag")
        if not columns[-1].isdecimal() and not tag_lib.TAG.fullmatch(columns[-1]):
            split_files.reject_line(path, number, f"unknown tag {shorten(columns[-1])}; {tag_lib.WANTED}")
        first_line = first_line if words else number
        words.append(columns[0].strip())
        tags.append(columns[-1])
    end_sentence()
    if not sentences:
        split_files.reject_line(path, 1, "no sentence in the file; wanted one word and its tag per line")
    return _with_names(path, sentences, labels)


def _with_names(path: str, sentences: list[Sentence], labels: Sequence[str]) -> list[Sentence]:
    """Returns the sentences with names of tags in place of numbers."""
    named = tag_lib.name_numbers(
        [one.tags for one in sentences], labels, lambda why: split_files.reject_line(path, sentences[0].line, why)
    )
    for one, names in zip(sentences, named, strict=True):
        for word, tag in enumerate(names):
            if tag.isdecimal():
                split_files.reject_line(
                    path, one.line + word, f"the tag {tag} is a number, those of other lines are not"
                )
    return [dataclasses.replace(one, tags=tuple(names)) for one, names in zip(sentences, named, strict=True)]
