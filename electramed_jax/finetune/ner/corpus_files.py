"""Reads tagged sentences from a file or folder of any supported format, which is detected from the content."""

from __future__ import annotations

from collections.abc import Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.ner import conll, json_tags, standoff
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.task import json_rows, split_files

ENDINGS = ("txt", "tsv", "conll", "iob", "iob2", "bio", "pubtator", *json_rows.ENDINGS)


def read_sentences(path: str, labels: Sequence[str] = ()) -> list[Sentence]:
    """Reads the sentences of a split.

    Args:
      path: a CoNLL, PubTator or JSON file, or a folder of brat.
      labels: names of numeric tags, from 0.

    Raises:
      UserError: something in the file cannot be used; names file and line.
    """
    if files.is_dir(path):
        if not standoff.is_brat(path):
            raise UserError(
                f"{path}: a folder without {standoff.ANNOTATIONS} files; wanted a folder of brat, or a file"
            )
        return standoff.read_brat(path)
    if path.endswith(tuple(f".{ending}" for ending in json_rows.ENDINGS)):
        return json_tags.read_sentences(path, labels)
    first_line = next(line for line in split_files.read_lines(path) if line.strip())
    if standoff.is_pubtator(first_line):
        return standoff.read_pubtator(path)
    return conll.read_sentences(path, labels)
