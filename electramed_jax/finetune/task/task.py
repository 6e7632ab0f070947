"""The interface between a fine-tuning task and the training code: examples, head and scores.

`NerTask`, `TextClassificationTask` and `QaTask` implement `Task`. The training code knows nothing else about a task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from electramed_jax.config.finetune import CLS
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf.format.mapping import SPAN

IGNORE = -100  # label of a token without one; the value that Hugging Face uses
TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")
SOFTMAX, SIGMOID, SQUARED = "softmax", "sigmoid", "squared"


@dataclasses.dataclass(frozen=True)
class Head:
    """The layers and the loss on top of the encoder.

    Attributes:
      kind: one of Hugging Face's three ELECTRA heads. "token": labels of tokens (dropout, dense). "sequence": labels of
        the example, at [CLS] (dropout, dense, gelu, dropout, dense). "span": first and last token of an answer (dense).
      labels: names of the outputs, in order; ("start", "end") of a span.
      loss: "softmax": one of the labels; "sigmoid": each label independently; "squared": a number (one label).
      pooling: "sequence": value of config.text.pooling.
      markers: token ids of the placeholders that `pooling` looks for.
      class_weights: "sequence", softmax: weight of the loss of each label; (): all 1.
      crf: "token": the loss is that of a conditional random field, which has trained transition scores.
    """

    kind: str
    labels: tuple[str, ...]
    loss: str = SOFTMAX
    pooling: str = CLS
    markers: tuple[int, ...] = ()
    class_weights: tuple[float, ...] = ()
    crf: bool = False

    @property
    def size(self) -> int:
        """Number of outputs."""
        return len(self.labels)


SPAN_HEAD = Head(SPAN, ("start", "end"))


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a split, in the order of its files.

    Attributes:
      input_ids: one int32[n] per example: [CLS] A [SEP] or [CLS] A [SEP] B [SEP], without [PAD], n <= `max_length`.
      labels: one array per example, by the head:
        token                  int32[n], IGNORE for a token without a label
        sequence, softmax      int32[]
        sequence, other losses float32[number of labels]
        span                   int32[2]: first and last token of the answer as indices in input_ids; 0, 0 ([CLS]) if
                               the example holds no answer
    """

    input_ids: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.input_ids)


# Float32 logits of every example of a split, in order: token [n, labels], sequence [labels], span [n, 2].
Outputs = Sequence[np.ndarray]


class CrfOutputs(list[np.ndarray]):
    """Logits of a head with a CRF, and its transition scores float32[labels + 1, labels]; see `viterbi.best_path`."""

    def __init__(self, logits: Outputs, transitions: np.ndarray):
        super().__init__(logits)
        self.transitions = transitions


class Task(Protocol):
    """A corpus with its examples, head and scores.

    Attributes:
      kind: value of config.task.kind: "ner", "relations", ...
      head: layers and loss.
      tokenizer: of the encoder, with the whole tokens that the task adds.
      max_length: maximum tokens of an example; also the length of a row.
      primary: name of the score by which the best checkpoint is chosen; higher is better.
      splits: the splits of the task: "train" and "dev" always, "test" if there is one.
    """

    kind: str
    head: Head
    tokenizer: Tokenizer
    max_length: int
    primary: str
    splits: tuple[str, ...]

    def examples(self, split: str) -> Examples:
        """Returns the examples of a split, the same at every call. They are kept in memory."""
        ...

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes the scores of a split, `primary` among them: percentages from 0 to 100, except for losses."""
        ...

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns the predictions as a text file in the format of the corpus, for inspection."""
        ...

    def records(self, split: str, outputs: Outputs) -> list[dict[str, Any]]:
        """Returns a record per sentence, text or question: its place, its text, "gold" and "predicted".

        Scores of a part of the split can be computed from them, see `analysis.score_sums`.
        """
        ...

    def prediction_warnings(self, split: str, outputs: Outputs) -> Sequence[str]:
        """Returns what is wrong with all predictions of a split together, such as that all are negative."""
        ...

    def data_summary(self) -> Mapping[str, Any]:
        """Returns the content of data.json, which identifies the data that a score belongs to.

        {"files": {split: {"path", "bytes", "sha256"}}, "sizes": {split: {"examples": ..., ...}}, ...}, and whatever
        else determines the variant of the data, such as the tag scheme.
        """
        ...

    def summary_lines(self) -> Sequence[str]:
        """Returns the lines logged before training: what was detected, truncated and left out."""
        ...

    def data_warnings(self) -> Sequence[str]:
        """Returns what makes the scores of these files too high or meaningless, one clause each.

        Among others: examples shared by splits, labels of a split that no training example has, labels without an
        example in a split.
        """
        ...
