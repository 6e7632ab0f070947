"""Scores of labels, label sets and numbers, as percentages from 0 to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from electramed_jax.common.errors import UserError

# Shown after the primary score, those that a task has.
SECONDARY_METRICS = (
    "precision", "recall", "text_f1", "strict_f1", "accuracy", "macro_f1", "example_f1", "spearman", "exact_match",
    "strict_accuracy", "lenient_accuracy",
)  # fmt: skip


def format_scores(scores: Mapping[str, float], primary: str) -> str:
    """Returns "f1 87.12  precision 86.00  recall 88.27": the primary score, then the secondary ones."""
    names = dict.fromkeys((primary, *SECONDARY_METRICS))
    return "  ".join(f"{name} {scores[name]:.2f}" for name in names if name in scores)


def choose_primary(wanted: str, default: str, available: Sequence[str]) -> str:
    """Returns the score that chooses the checkpoint: `wanted`, or the default if it is "".

    Args:
      available: the scores that a task has and of which a higher value is better.

    Raises:
      UserError: `wanted` is not available.
    """
    if wanted and wanted not in available:
        raise UserError(
            f"config.task.primary={wanted!r}: not a score of this task; wanted one of {', '.join(available)}"
        )
    return wanted or default


def classification_scores(
    gold: ArrayLike, predicted: ArrayLike, labels: Sequence[str], counted: Sequence[str] | None = None
) -> dict[str, float]:
    """Scores one label per example.

    Args:
      gold: label numbers, int[examples].
      predicted: label numbers, int[examples].
      labels: names by number.
      counted: labels that count for all scores but accuracy; None: all. Relations leave out "no relation".

    Returns:
      "accuracy"; with `counted`, micro-averaged "precision", "recall" and "f1" (of all labels they equal accuracy);
      "macro_f1" and the scores of each label, see `class_scores`.
    """
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    counts = {
        name: np.array([np.sum((predicted == n) & (gold == n)), np.sum(predicted == n), np.sum(gold == n)])
        for n, name in enumerate(labels)
        if counted is None or name in counted
    }
    accuracy = {"accuracy": 100 * float(np.mean(gold == predicted))}
    return accuracy | ({} if counted is None else micro_scores(counts)) | class_scores(counts)


def multilabel_scores(gold: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Scores any number of labels per example, bool[examples, labels].

    Returns:
      As `classification_scores` with all labels counted; "accuracy" is the share of examples with exactly the gold
      label set. "example_precision", "example_recall" and "example_f1": see `example_scores`.
    """
    counts = {
        name: np.array([np.sum(gold[:, n] & predicted[:, n]), np.sum(predicted[:, n]), np.sum(gold[:, n])])
        for n, name in enumerate(labels)
    }
    exact = 100 * float(np.mean((gold == predicted).all(axis=1)))
    return {"accuracy": exact} | micro_scores(counts) | example_scores(gold, predicted) | class_scores(counts)


def example_scores(gold: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns the example-based scores of label sets, bool[examples, labels]: BLUE's measure of HoC.

    Precision and recall are the means over the examples with a gold label; "example_f1" is their harmonic mean. All
    documents of BLUE's HoC have a label. Source: ncbi-nlp/BLUE_Benchmark, blue/eval_hoc.py. scikit-learn's F1 with
    average="samples" is the mean of the F1 of each example instead.
    """
    labelled = gold.any(axis=1)
    gold, predicted = gold[labelled], predicted[labelled]
    correct, found = (gold & predicted).sum(axis=1), predicted.sum(axis=1)
    precision = float(np.mean(correct / np.maximum(found, 1))) if len(gold) else 0.0
    recall = float(np.mean(correct / gold.sum(axis=1))) if len(gold) else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {"example_precision": 100 * precision, "example_recall": 100 * recall, "example_f1": 100 * f1}


def regression_scores(gold: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """Returns 100 times Pearson's and Spearman's correlation, and the mean squared error.

    A correlation is 0 if one side is constant.
    """
    from scipy import stats  # type: ignore[import-untyped]  # a dependency of jax; imported here to keep start-up fast

    gold, predicted = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    ranks = stats.rankdata(gold), stats.rankdata(predicted)
    return {
        "pearson": 100 * _correlation(gold, predicted),
        "spearman": 100 * _correlation(*ranks),
        "mean_squared_error": float(np.mean((gold - predicted) ** 2)),
    }


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (n - 1), which is 0 for one value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else 0.0


def micro_scores(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns micro-averaged precision, recall and F1, and "f1/CLASS" of each class of the gold, if there are several.

    Args:
      counts: int64[3] per class: true positives, predicted, gold.
    """
    pooled = sum(counts.values(), np.zeros(3, np.int64))
    scores = dict(zip(("precision", "recall", "f1"), _precision_recall_f1(pooled), strict=True))
    present = sorted(name for name, (_, _, gold) in counts.items() if gold)
    if len(present) > 1:
        scores |= {f"f1/{name}": _precision_recall_f1(counts[name])[2] for name in present}
    return scores


def class_scores(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns "macro_f1", and "precision/CLASS", "recall/CLASS" and "f1/CLASS" of each class of the gold.

    "macro_f1" is the mean F1 of the classes that are in the gold or were predicted, as in scikit-learn. A class without
    an example has no scores of its own: they would be 0 whatever a model predicts.

    Args:
      counts: see `micro_scores`.
    """
    by_class = {name: _precision_recall_f1(one) for name, one in counts.items() if one.any()}
    scores = {"macro_f1": float(np.mean([f1 for _, _, f1 in by_class.values()])) if by_class else 0.0}
    for name in sorted(by_class):
        if counts[name][2]:
            scores |= {
                f"{measure}/{name}": value
                for measure, value in zip(("precision", "recall", "f1"), by_class[name], strict=True)
            }
    return scores


def _precision_recall_f1(counts: np.ndarray) -> tuple[float, float, float]:
    correct, predicted, gold = (float(count) for count in counts)
    precision = 100 * correct / predicted if predicted else 0.0
    recall = 100 * correct / gold if gold else 0.0
    return precision, recall, 200 * correct / (predicted + gold) if predicted + gold else 0.0
