"""Labels of texts and of pairs of texts: relations, classes, sets of labels, and numbers.

relations       one of the labels; scored over those that are not "no relation"
classification  one of the labels; accuracy
multilabel      any number of the labels; micro F1
similarity      a number; Pearson's correlation
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task import metrics, split_files
from electramed_jax.finetune.task.task import SEQUENCE, SIGMOID, SOFTMAX, SQUARED, TRAIN, Examples, Head, Outputs
from electramed_jax.finetune.text_classification import inputs, tables
from electramed_jax.finetune.text_classification import labels as text_answers
from electramed_jax.finetune.text_classification.tables import Columns, Record

RELATIONS, CLASSIFICATION, MULTILABEL, SIMILARITY = KINDS = (
    "relations",
    "classification",
    "multilabel",
    "similarity",
)
LOSSES = {RELATIONS: SOFTMAX, CLASSIFICATION: SOFTMAX, MULTILABEL: SIGMOID, SIMILARITY: SQUARED}
PRIMARY = {RELATIONS: "f1", CLASSIFICATION: "accuracy", MULTILABEL: "f1", SIMILARITY: "pearson"}
SCORE = "score"  # the one label of a similarity


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Files, read.

    Attributes:
      paths: by split.
      records: by split; with a dev split, held out or not.
      columns: that were taken, by split.
    """

    paths: dict[str, str]
    records: dict[str, list[Record]]
    columns: dict[str, Columns]

    def placeholders(self) -> list[str]:
        """Of all splits."""
        return inputs.names_in([record for records in self.records.values() for record in records])


def read(paths: dict[str, str], columns: Columns, dev_fraction: float) -> Corpus:
    """Raises UserError naming file and line of what cannot be used; see `tables.read`."""
    found = {split: tables.read(path, columns) for split, path in paths.items()}
    records = split_files.with_held_out({split: held for split, (held, _) in found.items()}, dev_fraction)
    return Corpus(paths, records, {split: taken for split, (_, taken) in found.items()})


class TextClassificationTask:
    """See `task.Task`."""

    def __init__(
        self,
        kind: str,
        corpus: Corpus,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        negative: str = "false",
        separator: str = ",",
        threshold: float = 0.5,
    ):
        """Makes the examples.

        Args:
          kind: one of `KINDS`.
          negative: relations: what the name of a label has in it that says that there is none.
          separator: multilabel: what stands between the labels of an example in a table.
          threshold: multilabel: the probability above which a label is given.

        Raises:
          UserError: names file and line of what cannot be used.
        """
        self.kind, self.primary, self.max_length = kind, PRIMARY[kind], max_length
        self.splits = tuple(corpus.records)
        self._corpus, self._tokenizer = corpus, tokenizer
        self._separator, self._threshold = separator, threshold
        self._check_pieces()
        self._gold = {
            split: [self._labels_of(split, record) for record in corpus.records[split]] for split in self.splits
        }
        if kind == SIMILARITY:
            labels: tuple[str, ...] = (SCORE,)
        else:
            labels = tuple(sorted({label for of_one in self._gold[TRAIN] for label in of_one}))
            self._check_known(labels)
        self.head = Head(SEQUENCE, labels, LOSSES[kind])
        self._counted = [label for label in labels if negative not in label] if kind == RELATIONS else list(labels)
        if not self._counted or len(labels) < (2 if self.head.loss == SOFTMAX else 1):
            raise UserError(
                f"{corpus.paths[TRAIN]}: its labels are {', '.join(labels) or 'none'}; wanted at least two, and one "
                f"without {negative!r} in it to be a relation"
            )
        self._cut = dict.fromkeys(self.splits, 0)
        self._lost = dict.fromkeys(self.splits, 0)  # texts that lost a placeholder to the cut
        self._examples = {split: self._make(split) for split in self.splits}

    def examples(self, split: str) -> Examples:
        return self._examples[split]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        logits, gold = np.stack(outputs), np.stack(self._examples[split].labels)
        if self.kind == SIMILARITY:
            return metrics.numbers(gold[:, 0], logits[:, 0])
        if self.kind == MULTILABEL:
            return metrics.label_sets(gold > 0.5, text_answers.labels_above(logits, self._threshold), self.head.labels)
        return metrics.classes(gold, logits.argmax(axis=-1), self.head.labels, self._counted)

    def predictions(self, split: str, outputs: Outputs) -> str:
        """The line of each record in its file, its label there and the model's."""
        logits = np.stack(outputs)
        said = [
            f"{one:.4f}" if self.kind == SIMILARITY else self._separator.join(one) if self.kind == MULTILABEL else one
            for one in text_answers.predicted_labels(logits, self.head, self._threshold)
        ]
        lines = ["line\tlabel\tpredicted"]
        for record, gold, answer in zip(self._corpus.records[split], self._gold[split], said, strict=True):
            label = f"{gold[0]}" if self.kind == SIMILARITY else self._separator.join(gold)
            lines.append(f"{record.line}\t{label}\t{answer}")
        return "\n".join(lines) + "\n"

    def account(self) -> dict[str, Any]:
        return {
            "files": split_files.account(self._corpus.paths),
            "sizes": {split: {"examples": len(self._examples[split])} for split in self.splits},
            "columns": {split: dataclasses.asdict(taken) for split, taken in self._corpus.columns.items()},
            "labels": self._label_counts(),
            "counted": self._counted,
            "placeholders": {name: name in self._tokenizer.never_split for name in self._corpus.placeholders()},
        }

    def told(self) -> list[str]:
        lines = []
        for split in self.splits:
            source = self._corpus.paths.get(split, "held out of the training file")
            counts = ", ".join(f"{label} {count:,}" for label, count in self._label_counts()[split].items())
            cut = f"; {self._cut[split]:,} longer than {self.max_length} pieces, cut" if self._cut[split] else ""
            lost = f" ({self._lost[split]} of them lost a placeholder)" if self._lost[split] else ""
            lines.append(f"{split}: {source}: {len(self._examples[split]):,} texts: {counts}{cut}{lost}")
        if names := self._corpus.placeholders():
            how = "whole" if names[0] in self._tokenizer.never_split else "in pieces"
            lines.append(f"placeholders {', '.join(names)}: {how}")
        return lines

    # ---- labels ----------------------------------------------------------------------------------

    def _labels_of(self, split: str, record: Record) -> list[Any]:
        """The labels of a record; of a similarity its number."""
        path, value = self._path(split), record.label
        if self.kind == SIMILARITY:
            try:
                number = float(value)
            except (TypeError, ValueError):
                split_files.reject(path, record.line, f"the label {value!r} is not a number")
            if not math.isfinite(number):
                split_files.reject(path, record.line, f"the label {value!r} is not finite")
            return [number]
        if self.kind == MULTILABEL:
            listed = value.split(self._separator) if isinstance(value, str) else value
            if not isinstance(listed, list) or not all(isinstance(label, str) for label in listed):
                split_files.reject(path, record.line, f"the label {value!r} is not a list of labels")
            return sorted({label.strip() for label in listed if label.strip()})
        if isinstance(value, (list, dict)) or not str(value).strip():
            split_files.reject(path, record.line, f"the label is {value!r}; wanted one name")
        return [str(value).strip()]

    def _check_known(self, labels: Sequence[str]) -> None:
        for split in self.splits:
            for record, of_one in zip(self._corpus.records[split], self._gold[split], strict=True):
                for label in of_one:
                    if label not in labels:
                        split_files.reject(
                            self._path(split),
                            record.line,
                            f"unknown label {label!r}; the training file has {', '.join(labels)}",
                        )

    def _label_counts(self) -> dict[str, dict[str, int]]:
        if self.kind == SIMILARITY:
            return {split: {f"{min(gold)[0]:g} to {max(gold)[0]:g}": len(gold)} for split, gold in self._gold.items()}
        counts = {
            split: collections.Counter(n for of_one in gold for n in of_one) for split, gold in self._gold.items()
        }
        return {split: {label: counts[split][label] for label in self.head.labels} for split in self.splits}

    # ---- examples --------------------------------------------------------------------------------

    def _make(self, split: str) -> Examples:
        names = self._corpus.placeholders()
        made = inputs.make(self._corpus.records[split], names, self._tokenizer, self.max_length)
        self._cut[split], self._lost[split] = sum(made.cut), made.lost
        return Examples(made.input_ids, [self._target(of_one) for of_one in self._gold[split]])

    def _target(self, of_one: list[Any]) -> np.ndarray:
        if self.kind == SIMILARITY:
            return np.float32(of_one)
        if self.kind == MULTILABEL:
            return np.float32([label in of_one for label in self.head.labels])
        return np.int32(self.head.labels.index(of_one[0]))

    def _path(self, split: str) -> str:
        return self._corpus.paths.get(split, self._corpus.paths[TRAIN])

    def _check_pieces(self) -> None:
        names = self._corpus.placeholders()
        for split, records in self._corpus.records.items():

            def reject(line: int, why: str, path: str = self._path(split)) -> NoReturn:
                advice = "make it an entry of its own with --config.text.placeholders=whole"
                split_files.reject(path, line, f"{why}; {advice}")

            inputs.check_placeholders(records, names, self._tokenizer, reject)
