"""Classification of texts and of pairs of texts.

Kinds of tasks, with their primary score:

relations       one label; micro F1 over all labels but "no relation"
classification  one label; accuracy, and macro F1
multilabel      any number of labels; micro F1
similarity      a number; Pearson's correlation
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage.json_values import shorten
from electramed_jax.config.finetune import CLS, FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task import data_warnings, metrics, split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SOFTMAX, SQUARED, TRAIN, Examples, Head, Outputs
from electramed_jax.finetune.text_classification import inputs, label_names, placeholders, tables
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
# Scores that may choose the checkpoint, the default first; in addition "f1/LABEL" of each label.
PRIMARY = {
    RELATIONS: ("f1", "precision", "recall", "macro_f1", "accuracy"),
    CLASSIFICATION: ("accuracy", "macro_f1"),
    MULTILABEL: ("f1", "precision", "recall", "macro_f1", "accuracy", "example_f1"),
    SIMILARITY: ("pearson", "spearman"),
}
MAX_SCORE = 1e15  # of a label of "similarity"; sums of its squares are float32 too
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
        negative: str = "",
        separator: str = ",",
        threshold: float = 0.5,
        primary: str = "",
        strict_labels: bool = False,
        pooling: str = CLS,
        class_weight_power: float = 0.0,
    ):
        """Makes the examples.

        Args:
          kind: one of `KINDS`.
          max_length: maximum word pieces of an example.
          negative: relations: the label that means "no relation"; "": the one with a usual name, see `label_names`.
          separator: multilabel: separates the labels of an example in a table.
          threshold: multilabel: a label is predicted if its probability is above this.
          primary: score that chooses the checkpoint; "": the first of `PRIMARY`.
          strict_labels: raise if another split has a label that no training record has; False: it counts as missed.
          pooling: vectors that the head reads, value of config.text.pooling.
          class_weight_power: see config.text.class_weight_power.

        Raises:
          UserError: a record cannot be used (names file and line), or no label is the negative one.
        """
        self.kind, self.max_length, self.tokenizer = kind, max_length, tokenizer
        self.splits = tuple(corpus.records)
        self._corpus = corpus
        self._separator, self._threshold = separator, threshold
        self._check_placeholders()
        self._gold = {
            split: [self._labels_of(split, record) for record in corpus.records[split]] for split in self.splits
        }
        labels = self._find_labels()
        markers = tuple(sorted(map(tokenizer.tokens.index, corpus.placeholders()))) if pooling != CLS else ()
        if pooling != CLS and not markers:
            raise UserError(
                f"{corpus.paths[TRAIN]}: no placeholder such as @GENE$ in it, which config.text.pooling={pooling} "
                "looks for; use config.text.pooling=cls"
            )
        weights = self._class_weights(labels, class_weight_power)
        self.head = Head(SEQUENCE, labels, LOSSES[kind], pooling, markers, weights)
        if len(labels) < (2 if self.head.loss == SOFTMAX else 1):
            raise UserError(f"{corpus.paths[TRAIN]}: its labels are {', '.join(labels) or 'none'}; wanted at least two")
        self._negative = label_names.find_negative(labels, negative, corpus.paths[TRAIN]) if kind == RELATIONS else ""
        self._counted = [label for label in labels if label != self._negative]
        # Labels of other splits that no training record has, with the number of records.
        self._unknown = {split: self._count_unknown(split, strict_labels) for split in self.splits}
        label_f1 = [] if kind == SIMILARITY else [f"f1/{label}" for label in self._counted]
        self.primary = metrics.choose_primary(primary, PRIMARY[kind][0], [*PRIMARY[kind], *label_f1])
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
        columns = Columns(text.text_column, text.second_text_column, text.label_column, text.document_column)
        corpus = read_corpus(paths, columns, config.task.dev_fraction)
        whole_tokens: tuple[str, ...] = ()
        if text.placeholders == "whole":
            whole_tokens = tuple(corpus.placeholders())
            encoder = placeholders.add_to_vocabulary(encoder, whole_tokens)
        task = cls(
            config.task.kind,
            corpus,
            encoder.make_tokenizer(whole_tokens),
            max_length=config.task.max_seq_length,
            negative=text.negative,
            separator=text.label_separator,
            threshold=text.threshold,
            primary=config.task.primary,
            strict_labels=config.task.strict_labels,
            pooling=text.pooling,
            class_weight_power=text.class_weight_power,
        )
        return task, encoder

    def examples(self, split: str) -> Examples:
        """Returns one example per record."""
        return self._examples[split]

    def score(self, split: str, outputs: Outputs) -> dict[str, float]:
        """Computes the scores of the task's kind."""
        logits, gold = np.stack(outputs), self._gold[split]
        if self.kind == SIMILARITY:
            return metrics.regression_scores([number for (number,) in gold], logits[:, 0])
        labels = [*self.head.labels, *self._unknown[split]]  # no prediction is an unknown label
        if self.kind == MULTILABEL:
            expected = np.array([[label in of_record for label in labels] for of_record in gold])
            predicted = np.zeros_like(expected)
            predicted[:, : self.head.size] = labels_above(logits, self._threshold)
            return metrics.multilabel_scores(
                self._of_documents(split, expected), self._of_documents(split, predicted), labels
            )
        numbers = {label: number for number, label in enumerate(labels)}
        counted = [label for label in labels if label != self._negative] if self.kind == RELATIONS else None
        return metrics.classification_scores(
            [numbers[label] for (label,) in gold], logits.argmax(axis=-1), labels, counted
        )

    def _of_documents(self, split: str, of_sentences: np.ndarray) -> np.ndarray:
        """Returns the label sets of documents, bool[documents, labels]: all labels of their sentences.

        Without a column of documents the label sets are returned as they are.
        """
        ids = [record.document for record in self._corpus.records[split]]
        if not any(ids):
            return of_sentences
        names, document = np.unique(ids, return_inverse=True)
        of_documents = np.zeros((len(names), of_sentences.shape[1]), bool)
        np.logical_or.at(of_documents, document, of_sentences)
        return of_documents

    def predictions(self, split: str, outputs: Outputs) -> str:
        """Returns a table: the line of each record in its file, its label there and the predicted label."""
        predictions = predicted_labels(np.stack(outputs), self.head, self._threshold)
        lines = ["line\tlabel\tpredicted"]
        for record, gold, prediction in zip(self._corpus.records[split], self._gold[split], predictions, strict=True):
            label = f"{gold[0]}" if self.kind == SIMILARITY else self._separator.join(gold)
            lines.append(f"{record.line}\t{label}\t{self._format_prediction(prediction)}")
        return "\n".join(lines) + "\n"

    def records(self, split: str, outputs: Outputs) -> list[dict[str, Any]]:
        """Returns a record per text: its line, its texts, and lists of "gold" and "predicted" labels, or of numbers."""
        predictions = predicted_labels(np.stack(outputs), self.head, self._threshold)
        records = []
        for record, gold, prediction in zip(self._corpus.records[split], self._gold[split], predictions, strict=True):
            place = {"line": record.line} | ({"document": record.document} if record.document else {})
            texts = {"text": record.text} | ({"second": record.second} if record.second else {})
            predicted = prediction if isinstance(prediction, list) else [prediction]
            records.append(place | texts | {"gold": list(gold), "predicted": predicted})
        return records

    def prediction_warnings(self, split: str, outputs: Outputs) -> list[str]:
        """Returns a warning if all predictions are the same label, or no label is predicted."""
        if self.kind == SIMILARITY:
            return []
        predictions = predicted_labels(np.stack(outputs), self.head, self._threshold)
        distinct = {tuple(p) if isinstance(p, list) else p for p in predictions}
        if len(distinct) > 1 or len({tuple(gold) for gold in self._gold[split]}) == 1:
            return []
        (only,) = distinct
        label = ", ".join(only) if isinstance(only, tuple) else only
        negative = ", which means no relation" if label and label == self._negative else ""
        return [f"all {len(predictions):,} predictions of {split} are {label or 'without a label'}{negative}"]

    def _format_prediction(self, prediction: str | list[str] | float) -> str:
        if isinstance(prediction, float):
            return f"{prediction:.4f}"
        return self._separator.join(prediction) if isinstance(prediction, list) else prediction

    def data_summary(self) -> dict[str, Any]:
        """Returns the content of data.json."""
        return {
            "files": self._files,
            "sizes": {split: {"examples": len(self._examples[split])} for split in self.splits},
            "columns": {split: dataclasses.asdict(columns) for split, columns in self._corpus.columns.items()},
            "labels": self._label_counts(),
            "counted": self._counted,
            **({"negative": self._negative} if self.kind == RELATIONS else {}),
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
        if self.kind == RELATIONS:
            lines.append(f"no relation: {self._negative}; labels that are scored: {', '.join(self._counted)}")
        if names := self._corpus.placeholders():
            how = "whole" if names[0] in self.tokenizer.never_split else "in pieces"
            lines.append(f"placeholders {', '.join(names)}: {how}")
        return lines

    def data_warnings(self) -> list[str]:
        """Returns what makes the scores of these files too high or meaningless; see `task.data_warnings`."""
        warnings = data_warnings.warn_same_files(self._files)
        texts = {split: [(r.text, r.second) for r in records] for split, records in self._corpus.records.items()}
        warnings += data_warnings.warn_shared_examples(texts, {s: list(map(tuple, g)) for s, g in self._gold.items()})
        for split, gold in self._gold.items():
            if self.kind == SIMILARITY:
                if min(gold) == max(gold):
                    warnings.append(f"all numbers of {split} are {gold[0][0]:g}: its correlations are 0 for any model")
            else:
                warnings += data_warnings.warn_unknown_labels(split, self.head.labels, gold, "examples")
                warnings += data_warnings.warn_label_support(split, self._counted, gold, "examples")
        return warnings

    @functools.cached_property
    def _files(self) -> dict[str, dict[str, Any]]:
        return split_files.describe_files(self._corpus.paths)

    def _find_labels(self) -> tuple[str, ...]:
        """Returns the labels of the training records, sorted; of binary values, the names."""
        path, gold = self._corpus.paths[TRAIN], self._gold[TRAIN]
        if self.kind == SIMILARITY:
            return (SCORE,)
        if self.kind == MULTILABEL and label_names.is_binary_form(gold):
            names = label_names.binary_names(gold)
            self._gold = {split: self._positive_names(split, names) for split in self.splits}
            return tuple(names)
        labels = sorted({label for of_record in gold for label in of_record})
        if self.kind != MULTILABEL and label_names.looks_like_label_sets(labels):
            raise UserError(
                f"{path}: a label such as {labels[0]} is a value of each of several labels; use "
                "--config.task.kind=multilabel"
            )
        return tuple(labels)

    def _positive_names(self, split: str, names: Sequence[str]) -> list[list[Any]]:
        """Returns the labels of each record of a split with binary values."""
        positive = []
        for record, labels in zip(self._corpus.records[split], self._gold[split], strict=True):
            try:
                positive.append(label_names.positive_names(labels, names))
            except ValueError as error:
                split_files.reject_line(
                    self._path(split),
                    record.line,
                    f"the label {error}, as in other records; correct it, or rename labels that end in _0 and _1 but "
                    "are no such values",
                )
        return positive

    def _labels_of(self, split: str, record: Record) -> list[Any]:
        """Returns the labels of a record, or its number for "similarity"."""
        path, value = self._path(split), record.label
        if self.kind == SIMILARITY:
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                split_files.reject_line(path, record.line, f"the label {shorten(value)} is not a number")
            if not abs(number) <= MAX_SCORE:
                split_files.reject_line(
                    path, record.line, f"the label {shorten(value)} is not a finite number up to {MAX_SCORE:g}"
                )
            return [number]
        if self.kind == MULTILABEL:
            listed = value.split(self._separator) if isinstance(value, str) else value
            if not isinstance(listed, list) or not all(isinstance(label, str) for label in listed):
                split_files.reject_line(path, record.line, f"the label {shorten(value)} is not a list of labels")
            return sorted({label.strip() for label in listed if label.strip()})
        if isinstance(value, (list, dict)) or not str(value).strip():
            split_files.reject_line(path, record.line, f"the label is {shorten(value)}; wanted one name")
        return [str(value).strip()]

    def _count_unknown(self, split: str, strict: bool) -> dict[str, int]:
        """Returns the labels of a split that no training record has, with the number of records."""
        counts: collections.Counter[str] = collections.Counter()
        if self.kind == SIMILARITY:
            return counts
        for record, gold in zip(self._corpus.records[split], self._gold[split], strict=True):
            unknown = [label for label in gold if label not in self.head.labels]
            if unknown and strict:
                split_files.reject_line(
                    self._path(split),
                    record.line,
                    f"unknown label {unknown[0]!r}; the training records have {', '.join(self.head.labels)}; correct "
                    "it, or count it as missed with --config.task.strict_labels=False",
                )
            counts.update(unknown)
        return dict(sorted(counts.items()))

    def _class_weights(self, labels: Sequence[str], power: float) -> tuple[float, ...]:
        """Returns (N / (K n))^power for each label; () for power 0."""
        if not power:
            return ()
        counts = data_warnings.count_labels(self._gold[TRAIN])
        return tuple((counts.total() / (len(labels) * counts[label])) ** power for label in labels)

    def _label_counts(self) -> dict[str, dict[str, int]]:
        if self.kind == SIMILARITY:
            return {split: {f"{min(gold)[0]:g} to {max(gold)[0]:g}": len(gold)} for split, gold in self._gold.items()}
        counts = {split: data_warnings.count_labels(gold) for split, gold in self._gold.items()}
        labels = self.head.labels
        return {s: {label: counts[s][label] for label in (*labels, *self._unknown[s])} for s in self.splits}

    def _target(self, gold: list[Any]) -> np.ndarray:
        """Returns the label array of an example, IGNORE for an unknown label; see `task.Examples`."""
        if self.kind == SIMILARITY:
            return np.array(gold, np.float32)
        if self.kind == MULTILABEL:
            return np.array([label in gold for label in self.head.labels], np.float32)
        labels = self.head.labels
        return np.array(labels.index(gold[0]) if gold[0] in labels else IGNORE, np.int32)

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
