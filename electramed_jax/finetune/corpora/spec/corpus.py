"""The declaration of a corpus."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from electramed_jax.common.errors import UserError

Row = dict[str, Any]  # a line of a prepared file, in a form that the task reads
Splits = Mapping[str, Sequence[Row]]
GENUINE, INVENTED = "genuine", "invented"
NER, QA = "ner", "qa"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus: where it is from, how it is read, and how it is used.

    Attributes:
      name: lower case, such as "bc5-chemical".
      kind: value of config.task.kind.
      home: where its owner distributes it.
      licence: in the words of the owner, or of the card of the corpus.
      registration: what a user has to register for; "": nothing.
      files: original files that `read` looks for, as patterns below the folder, with their form.
      splits: how train, dev and test are made.
      labels: types of entities, or labels; (): numbers, or answers. A prepared corpus has no others.
      measure: score of the literature, and its name here.
      traps: what makes scores of this corpus incomparable.
      settings: settings of fine-tuning by dotted name, without the files.
      settings_source: where their values are from.
      counts: expected counts by split; see `count`.
      counts_source: where they are from.
      checked: whether `read` was checked with genuine files, or with invented ones in their form.
      read: source folder -> rows of "train", "test", and "dev" if there is one.
    """

    name: str
    kind: str
    home: str
    licence: str
    files: Mapping[str, str]
    splits: str
    labels: tuple[str, ...]
    measure: str
    read: Callable[[str], Splits]
    settings: Mapping[str, Any]
    settings_source: str
    registration: str = ""
    traps: tuple[str, ...] = ()
    counts: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    counts_source: str = ""
    checked: str = INVENTED


def count(rows: Sequence[Row]) -> dict[str, int]:
    """Returns the numbers of a split: "rows", "documents" (different ids), "entities", "questions", "label X"."""
    counts: collections.Counter[str] = collections.Counter(rows=len(rows))
    counts["documents"] = len({row.get("id", number) for number, row in enumerate(rows)})
    for row in rows:
        if "paragraphs" in row:
            counts["questions"] += sum(len(paragraph["qas"]) for paragraph in row["paragraphs"])
        if "entities" in row:
            counts["entities"] += len(row["entities"])
        if "ner_tags" in row:
            counts["entities"] += sum(tag.startswith("B-") for tag in row["ner_tags"])
        labels = row["label"] if isinstance(row.get("label"), list) else [row.get("label")]
        counts.update(f"label {label}" for label in labels if isinstance(label, str))
    return dict(counts)


def find_labels(rows: Sequence[Row]) -> set[str]:
    """Returns the types of entities and the labels of a split."""
    found = {entity["type"] for row in rows for entity in row.get("entities", ())}
    found |= {tag.partition("-")[2] for row in rows for tag in row.get("ner_tags", ()) if tag != "O"}
    for row in rows:
        listed = row["label"] if isinstance(row.get("label"), list) else [row.get("label")]
        found |= {label for label in listed if isinstance(label, str)}
    return found


def check_labels(corpus: Corpus, splits: Splits) -> None:
    """Raises UserError if a row has a label that is none of the corpus."""
    for split, rows in splits.items():
        if unknown := sorted(find_labels(rows) - set(corpus.labels)) if corpus.labels else []:
            raise UserError(
                f"{corpus.name}: {split} has the label {unknown[0]!r}; wanted {', '.join(corpus.labels)}; the source "
                f"is another version: download it again from {corpus.home}"
            )


def check_counts(corpus: Corpus, counted: Mapping[str, Mapping[str, int]]) -> None:
    """Raises UserError if the numbers of a split are not those of the corpus."""
    wrong = [
        f"{split} has {counted.get(split, {}).get(name, 0):,} {name}, not {expected:,}"
        for split, numbers in corpus.counts.items()
        for name, expected in numbers.items()
        if counted.get(split, {}).get(name, 0) != expected
    ]
    if wrong:
        raise UserError(
            f"{corpus.name}: {'; '.join(wrong)} ({corpus.counts_source}); the source is another version or incomplete: "
            f"download it again from {corpus.home}, or accept these numbers with --any_counts"
        )
