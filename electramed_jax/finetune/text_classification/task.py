"""Classification of texts and of pairs of texts.

Kinds of tasks, with their primary score:

relations       one label; micro F1 over all labels but "no relation"
classification  one label; accuracy
multilabel      any number of labels; micro F1
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
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task import metrics, split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, TRAIN, Examples, Head, Outputs
from electramed_jax.finetune.text_classification import inputs, placeholders, tables
from electramed_jax.finetune.text_classification.labels import labels_above, predicted_labels
from electramed_jax.finetune.text_classification.tables import Columns, Record
from electramed_jax.hf.format.mapping import SEQUENCE

RELATIONS, CLASSIFICATION, MULTILABEL, SIMILARITY = KINDS = (
    "relations",
    "classification",
    "multilabel",
    "similarity",
)
LOSSES = {RELATIONS: SOFTMAX, CLASSIFICATION: SOFTMAX, MULTILABEL: SIGMOID, SIMILARITY: SQUARED}
PRIMARY = {RELATIONS: "f1", CLASSIFICATION: "accuracy", MULTILABEL: "f1", SIMILARITY: "pearson"}
SCORE = "score"  # name of the only output of "similarity"


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The records of all splits.

    Attributes:
      paths: the file of each split that has one.
      records: by split; "dev" may be held out of "train".
      columns: the columns that were read, by split.
    """

    paths: dict[str, str]
    records: dict[str, list[Record]]
    columns: dict[str, Columns]

    def placeholders(self) -> list[str]:
        """Returns the placeholders of all splits, sorted."""
        return inputs.placeholder_names([record for records in self.records.values() for record in records])


def read_corpus(paths: dict[str, str], columns: Columns, dev_fraction: float) -> Corpus:
    """Reads the files of all splits; raises UserError like `tables.read_table`."""
    read = {split: tables.read_table(path, columns) for split, path in paths.items()}
    records = split_files.hold_out_dev({split: of_file for split, (of_file, _) in read.items()}, dev_fraction)
    return Corpus(paths, records, {split: used for split, (_, used) in read.items()})


class TextClassificationTask:
    """Labels of texts; see `task.Task`."""

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
          max_length: maximum word pieces of an example.
          negative: relations: a label with this in its name means "no relation".
          separator: multilabel: separates the labels of an example in a table.
          threshold: multilabel: a label is predicted if its probability is above this.

        Raises:
          UserError: a record cannot be used; names file and line.
        """
        self.kind, self.primary, self.max_length, self.tokenizer = kind, PRIMARY[kind], max_length, tokenizer
        self.splits = tuple(corpus.records)
        self._corpus = corpus
        self._separator, self._threshold = separator, threshold
        self._check_placeholders()
        self._gold = {
            split: [self._labels_of(split, record) for record in corpus.records[split]] for split in self.splits
        }
        if kind == SIMILARITY:
            labels: tuple[str, ...] = (SCORE,)
        else:
            labels = tuple(sorted({label for gold in self._gold[TRAIN] for label in gold}))
            self._check_known(labels)
        self.head = Head(SEQUENCE, labels, LOSSES[kind])
        self._counted = [label for label in labels if negative not in label] if kind == RELATIONS else list(labels)
        if not self._counted or len(labels) < (2 if self.head.loss == SOFTMAX else 1):
            raise UserError(
                f"{corpus.paths[TRAIN]}: its labels are {', '.join(labels) or 'none'}; wanted at least two, and for "
                f"relations one without {negative!r} in its name"
            )
        names = corpus.placeholders()
        self._inputs = {
            split: inputs.make_inputs(records, names, tokenizer, max_length)
            for split, records in corpus.records.items()
        }
        self._examples = {
            split: Examples(made.input_ids, [self._target(gold) for gold in self._gold[split]])
            for split, made in self._inputs.items()
        }

    @classmethod
    def from_config(cls, config: FinetuneConfig, encoder: InitEncoder) -> tuple[TextClassificationTask, InitEncoder]:
        """Builds the task; returns it with the encoder, to which whole placeholders were added."""
        chosen = {"train": config.task.train, "dev": config.task.dev, "test": config.task.test}
        paths = split_files.find_split_files(config.task.data, chosen, tables.ENDINGS)
        text = config.text
        columns = Columns(text.text_column, text.second_text_column, text.label_column)
        corpus = read_corpus(paths, columns, config.task.dev_fraction)
        whole_tokens: tuple[str, ...] = ()
        if text.placeholders == "whole":
            whole_tokens = tuple(corpus.placeholders())
            encoder = placeholders.add_to_vocabulary(encoder, whole_tokens)
        task = cls(
            config.task.kind,
            corpus,
            Tokenizer.from_tokens(encoder.tokens, encoder.lower_case, whole_tokens),
            max_length=config.task.max_seq_length,
            negative=text.negative,
            separator=text.label_separator,
            threshold=text.threshold,
        )
        return task, encoder

    def examples(self, split: str) -> Examples:
        """Returns one example per record."""
        return self._examples[split]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes the scores of the task's kind."""
        logits, gold = np.stack(outputs), np.stack(self._examples[split].labels)
        if self.kind == SIMILARITY:
            return metrics.regression_scores(gold[:, 0], logits[:, 0])
        if self.kind == MULTILABEL:
            return metrics.multilabel_scores(gold > 0.5, labels_above(logits, self._threshold), self.head.labels)
        return metrics.classification_scores(gold, logits.argmax(axis=-1), self.head.labels, self._counted)

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns a table: the line of each record in its file, its label there and the predicted label."""
        predictions = predicted_labels(np.stack(outputs), self.head, self._threshold)
        lines = ["line\tlabel\tpredicted"]
        for record, gold, prediction in zip(self._corpus.records[split], self._gold[split], predictions, strict=True):
            label = f"{gold[0]}" if self.kind == SIMILARITY else self._separator.join(gold)
            lines.append(f"{record.line}\t{label}\t{self._format_prediction(prediction)}")
        return "\n".join(lines) + "\n"

    def _format_prediction(self, prediction: str | list[str] | float) -> str:
        if isinstance(prediction, float):
            return f"{prediction:.4f}"
        return self._separator.join(prediction) if isinstance(prediction, list) else prediction

    def data_summary(self) -> dict[str, Any]:
        """Returns the content of data.json."""
        return {
            "files": split_files.describe_files(self._corpus.paths),
            "sizes": {split: {"examples": len(self._examples[split])} for split in self.splits},
            "columns": {split: dataclasses.asdict(columns) for split, columns in self._corpus.columns.items()},
            "labels": self._label_counts(),
            "counted": self._counted,
            "placeholders": {name: name in self.tokenizer.never_split for name in self._corpus.placeholders()},
        }

    def summary_lines(self) -> list[str]:
        """Returns a line per split: file, labels and truncated texts; and a line about placeholders."""
        lines = []
        for split in self.splits:
            source = self._corpus.paths.get(split, "held out of the training file")
            counts = ", ".join(f"{label} {count:,}" for label, count in self._label_counts()[split].items())
            truncated, lost = sum(self._inputs[split].truncated), self._inputs[split].lost_placeholders
            notes = f"; {truncated:,} truncated to {self.max_length} word pieces" if truncated else ""
            notes += f" ({lost} of them lost a placeholder)" if lost else ""
            lines.append(f"{split}: {source}: {len(self._examples[split]):,} texts: {counts}{notes}")
        if names := self._corpus.placeholders():
            how = "whole" if names[0] in self.tokenizer.never_split else "in pieces"
            lines.append(f"placeholders {', '.join(names)}: {how}")
        return lines

    def _labels_of(self, split: str, record: Record) -> list[Any]:
        """Returns the labels of a record, or its number for "similarity"."""
        path, value = self._path(split), record.label
        if self.kind == SIMILARITY:
            try:
                number = float(value)
            except (TypeError, ValueError):
                split_files.reject_line(path, record.line, f"the label {value!r} is not a number")
            if not math.isfinite(number):
                split_files.reject_line(path, record.line, f"the label {value!r} is not finite")
            return [number]
        if self.kind == MULTILABEL:
            listed = value.split(self._separator) if isinstance(value, str) else value
            if not isinstance(listed, list) or not all(isinstance(label, str) for label in listed):
                split_files.reject_line(path, record.line, f"the label {value!r} is not a list of labels")
            return sorted({label.strip() for label in listed if label.strip()})
        if isinstance(value, (list, dict)) or not str(value).strip():
            split_files.reject_line(path, record.line, f"the label is {value!r}; wanted one name")
        return [str(value).strip()]

    def _check_known(self, labels: Sequence[str]) -> None:
        for split in self.splits:
            for record, gold in zip(self._corpus.records[split], self._gold[split], strict=True):
                for label in gold:
                    if label not in labels:
                        split_files.reject_line(
                            self._path(split),
                            record.line,
                            f"unknown label {label!r}; the training file has {', '.join(labels)}",
                        )

    def _label_counts(self) -> dict[str, dict[str, int]]:
        if self.kind == SIMILARITY:
            return {split: {f"{min(gold)[0]:g} to {max(gold)[0]:g}": len(gold)} for split, gold in self._gold.items()}
        counts = {
            split: collections.Counter(label for of_record in gold for label in of_record)
            for split, gold in self._gold.items()
        }
        return {split: {label: counts[split][label] for label in self.head.labels} for split in self.splits}

    def _target(self, gold: list[Any]) -> np.ndarray:
        """Returns the label array of an example; see `task.Examples`."""
        if self.kind == SIMILARITY:
            return np.array(gold, np.float32)
        if self.kind == MULTILABEL:
            return np.array([label in gold for label in self.head.labels], np.float32)
        return np.array(self.head.labels.index(gold[0]), np.int32)

    def _path(self, split: str) -> str:
        return self._corpus.paths.get(split, self._corpus.paths[TRAIN])

    def _check_placeholders(self) -> None:
        """Raises UserError if the vocabulary cannot represent a placeholder."""
        names = self._corpus.placeholders()
        for split, records in self._corpus.records.items():

            def reject(line: int, why: str, path: str = self._path(split)) -> NoReturn:
                advice = "make it an entry of its own with --config.text.placeholders=whole"
                split_files.reject_line(path, line, f"{why}; {advice}")

            inputs.check_placeholders(records, names, self.tokenizer, reject)
