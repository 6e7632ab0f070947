"""Scores as functions of sums over examples, from the records of a run (`Task.records`).

A score of any resample of the examples then costs a product with a matrix: see `compare`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError

Record = Mapping[str, Any]
PAIRS = ("precision", "recall", "f1")
# Scores that can be compared, by kind of task. Those of questions are means of the scores of single questions.
SCORES = {
    "ner": PAIRS,
    "relations": (*PAIRS, "macro_f1", "accuracy"),
    "classification": ("accuracy", "macro_f1"),
    "multilabel": (*PAIRS, "macro_f1", "accuracy"),
    "similarity": ("pearson",),
    "qa": (*PAIRS, "exact_match", "mrr", "strict_accuracy", "lenient_accuracy"),
}


@dataclasses.dataclass(frozen=True)
class ScoreSums:
    """A score: `finish(sums)` with the sum over examples of `of_example`.

    Attributes:
      of_example: float64[examples, C].
      finish: float64[..., C] -> float64[...], in percent.
    """

    of_example: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]


def score_sums(
    kind: str, score: str, records: Sequence[Record], labels: Sequence[str], counted: Sequence[str]
) -> ScoreSums:
    """Returns the sums of a score.

    Args:
      kind: value of config.task.kind.
      score: one of `SCORES`, or "f1/LABEL".
      records: of all examples.
      labels: all labels that occur, of texts.
      counted: labels that count for precision, recall and F1, of texts.

    Raises:
      UserError: this score of this kind of task cannot be computed from records.
    """
    name, _, label = score.partition("/")
    has_labels = kind not in ("similarity", "qa")
    if score not in SCORES[kind] and not (has_labels and name == "f1" and label):
        raise UserError(f"{score}: not a score that is compared for {kind}; wanted one of {', '.join(SCORES[kind])}")
    records = _of_documents(records) if kind == "multilabel" else records
    if kind == "qa":
        if score not in records[0]:
            raise UserError(f"{score}: the run has no such score of its questions; it has {', '.join(records[0])}")
        return ScoreSums(np.array([[record[score], 1.0] for record in records]), _mean)
    if kind == "similarity":
        pairs = np.array([[record["gold"][0], record["predicted"][0]] for record in records], np.float64)
        return ScoreSums(_moments(*pairs.T), _pearson)
    if score == "accuracy":
        right = [[100.0 * (sorted(r["gold"]) == sorted(r["predicted"])), 1.0] for r in records]
        return ScoreSums(np.array(right), _mean)
    if name == "macro_f1":
        scored = [one for one in labels if kind != "relations" or one in counted]
        counts = np.stack([_counts(records, functools.partial(operator.eq, one)) for one in scored], axis=1)
        return ScoreSums(counts.reshape(len(records), -1), _macro_f1)
    if kind == "ner":
        counts = _counts(records, lambda item: not label or item[2] == label)
    else:
        wanted = {label} if label else set(counted)
        counts = _counts(records, lambda item: item in wanted)
    place = PAIRS.index(name)
    return ScoreSums(counts, lambda sums: _pair_scores(sums)[place])


def _of_documents(records: Sequence[Record]) -> list[Record]:
    """Returns a record per document with all labels of its sentences; the records as they are without documents."""
    if not records or "document" not in records[0]:
        return list(records)
    united: dict[str, dict[str, list[str]]] = {}
    for record in records:
        one = united.setdefault(record["document"], {"gold": [], "predicted": []})
        for side, found in one.items():
            found += [label for label in record[side] if label not in found]
    return list(united.values())


def _counts(records: Sequence[Record], is_counted: Callable[[Any], bool]) -> np.ndarray:
    """Returns float64[examples, 3]: correct, predicted and gold items that are counted."""
    counts = []
    for record in records:
        gold, predicted = (
            {tuple(item) if isinstance(item, list) else item for item in record[side] if is_counted(item)}
            for side in ("gold", "predicted")
        )
        counts.append([len(gold & predicted), len(predicted), len(gold)])
    return np.array(counts, np.float64)


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _pair_scores(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns precision, recall and F1 from sums [..., 3]."""
    correct, predicted, gold = np.moveaxis(sums, -1, 0)
    precision, recall = 100 * correct / np.maximum(predicted, 1), 100 * correct / np.maximum(gold, 1)
    return precision, recall, 200 * correct / np.maximum(predicted + gold, 1)


def _macro_f1(sums: np.ndarray) -> np.ndarray:
    """Returns the mean F1 of the labels that are gold or predicted, from sums [..., 3 labels]."""
    by_label = sums.reshape(*sums.shape[:-1], -1, 3)
    f1, occurs = _pair_scores(by_label)[2], by_label.any(axis=-1)
    return (f1 * occurs).sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1)


def _moments(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)


def _pearson(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    covariance, size = n * xy - x * y, np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 0))
    return 100 * np.where(size > 0, covariance / np.where(size > 0, size, 1), 0.0)
