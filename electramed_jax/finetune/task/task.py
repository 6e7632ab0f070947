"""What a downstream task tells the code that trains: its examples, its head, its score.

A task is an object with the members of `Task`; `ner.py`, `text.py` and `qa.py` each make one from files. Nothing here
or in the loop knows what a task is about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

IGNORE = -100  # label of a token that is not asked about; Hugging Face's, too
TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")
TOKEN, SEQUENCE, SPAN = "token", "sequence", "span"
SOFTMAX, SIGMOID, SQUARED = "softmax", "sigmoid", "squared"


@dataclasses.dataclass(frozen=True)
class Head:
    """What is put on the encoder.

    Attributes:
      kind: "token" asks about tokens (dropout, dense), "sequence" about the example's [CLS] (dropout, dense, gelu,
        dropout, dense), "span" for a first and a last token (dense): Hugging Face's three ELECTRA heads.
      labels: names of the outputs, by number; a span's are "start" and "end".
      loss: "softmax" one of the labels; "sigmoid" each label by itself; "squared" a number (one label).
    """

    kind: str
    labels: tuple[str, ...]
    loss: str = SOFTMAX

    @property
    def size(self) -> int:
        return len(self.labels)


SPAN_HEAD = Head(SPAN, ("start", "end"))


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a split, in the order of its files.

    Attributes:
      input_ids: of each example, int32[n]: [CLS] A [SEP] or [CLS] A [SEP] B [SEP], no [PAD], n <= `max_length`.
      labels: of each example, by the head:
        token              int32[n], IGNORE where a token is not asked about
        sequence, softmax  int32[]
        sequence, else     float32[number of labels]
        span               int32[2]: the first and the last token of the answer as places in input_ids; 0, 0 ([CLS])
                           where the example holds none
    """

    input_ids: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.input_ids)


# The head's float32 logits for every example of a split, in order: token [n, labels], sequence [labels], span [n, 2].
Outputs = Sequence[np.ndarray]


class Task(Protocol):
    """A corpus with its question.

    Attributes:
      kind: "ner", "relations", ...; the value of config.task.kind.
      head: see `Head`.
      max_length: tokens of the longest example there may be; also the length of the rows.
      primary: name of the score by which the best checkpoint is chosen; higher is better.
      splits: of "train", "dev" and "test", those the task has; "train" and "dev" always.
    """

    kind: str
    head: Head
    max_length: int
    primary: str
    splits: tuple[str, ...]

    def examples(self, split: str) -> Examples:
        """Always the same ones for a split. They are kept in memory."""
        ...

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """The scores of a split, among them `primary`; percentages from 0 to 100, losses and the like excepted."""
        ...

    def predictions(self, split: str, outputs: Outputs) -> str:
        """The answers as a text file in the corpus's own form, for a person to look into."""
        ...

    def account(self) -> Mapping[str, Any]:
        """What has to stand beside a score, ready for JSON: {"files": {split: {"name": ..., "sha256": ...}},
        "sizes": {split: {"examples": ..., "sentences": ...}}, ...}, and whatever else tells the data's variant
        (the tag scheme, for one)."""
        ...

    def told(self) -> Sequence[str]:
        """Lines a person should read before training: what was detected, cut, left out."""
        ...
