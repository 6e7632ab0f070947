"""Folders of the Hallmarks of Cancer corpus (HoC), as its authors distribute them: one file per abstract.

    text/10072428.txt     a sentence per line
    labels/10072428.txt   a line with the labels of each sentence after a "<", in the same order

The labels of a sentence are separated by AND. A label is a path in the taxonomy, "1. sustaining proliferative
signaling--by downregulating tumor suppressors": its first part is one of the ten hallmarks. NULL, or nothing, means
no label. Source of the form: github.com/sb895/Hallmarks-of-Cancer.

A record is an abstract, with the labels of all its sentences: the documents that the literature scores.
"""

from __future__ import annotations

import re
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.task import split_files

TEXTS, LABELS = "text", "labels"
_NO_LABEL = ("", "null", "none")
_NUMBER = re.compile(r"^\d+\.?\s*")


def is_folder(path: str) -> bool:
    """Returns whether a path is a folder of this form."""
    return files.is_dir(path) and {TEXTS, LABELS} <= set(files.list_dir(path))


def read_rows(folder: str) -> list[tuple[int, dict[str, Any]]]:
    """Returns (number from 1, {"id", "text", "labels"}) of each abstract, sorted by the names of the files.

    Raises:
      UserError: a text or its labels are missing, or their numbers of sentences differ.
    """
    rows = []
    names = files.list_dir(files.join(folder, TEXTS))
    labelled = set(files.list_dir(files.join(folder, LABELS)))
    for number, name in enumerate((name for name in names if not name.startswith(".")), 1):
        path = files.join(folder, LABELS, name)
        if name not in labelled:
            raise UserError(f"{files.join(folder, TEXTS, name)}: no {path}; copy the corpus again")
        sentences = [line.strip() for line in split_files.read_lines(files.join(folder, TEXTS, name)) if line.strip()]
        per_sentence = files.read_text(path).strip().split("<")[1:]
        if len(per_sentence) != len(sentences):
            split_files.reject_line(
                path, 1, f"labels of {len(per_sentence)} sentences; {TEXTS}/{name} has {len(sentences)}; copy it again"
            )
        labels = {label for of_sentence in per_sentence for label in _hallmarks(of_sentence)}
        rows.append((number, {"id": name.split(".")[0], "text": " ".join(sentences), "labels": sorted(labels)}))
    if not rows:
        raise UserError(f"{folder}: no texts in it; copy the corpus again")
    return rows


def _hallmarks(listed: str) -> list[str]:
    """Returns the hallmarks of a sentence, without their numbers and their finer classes."""
    heads = (_NUMBER.sub("", label.strip().split("--")[0]).strip() for label in listed.split("AND"))
    return [head.lower() for head in heads if head.lower() not in _NO_LABEL]
