"""Scores of labels, label sets and numbers, as percentages from 0 to 100."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

# Shown after the primary score, those that a task has.
SECONDARY_METRICS = (
    "precision", "recall", "accuracy", "spearman", "exact_match", "strict_accuracy", "lenient_accuracy",
)  # fmt: skip


def format_scores(scores: Mapping[str, float], primary: str) -> str:
    """Returns "f1 87.12  precision 86.00  recall 88.27": the primary score, then the secondary ones."""
    names = dict.fromkeys((primary, *SECONDARY_METRICS))
    return "  ".join(f"{name} {scores[name]:.2f}" for name in names if name in scores)


def classification_scores(
    gold: ArrayLike, predicted: ArrayLike, labels: Sequence[str], counted: Sequence[str] | None = None
) -> dict[str, float]:
    """Scores one label per example.

    Args:
      gold: label numbers, int[examples].
      predicted: label numbers, int[examples].
      labels: names by number.
      counted: labels that count for precision, recall and F1; None: all. Relations leave out "no relation".

    Returns:
      "accuracy"; micro-averaged "precision", "recall" and "f1" of the counted labels; "f1/LABEL" of each; "macro_f1".
    """
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    counts = {
        name: np.array([np.sum((predicted == n) & (gold == n)), np.sum(predicted == n), np.sum(gold == n)])
        for n, name in enumerate(labels)
        if counted is None or name in counted
    }
    return {"accuracy": 100 * float(np.mean(gold == predicted))} | micro_scores(counts) | _macro(counts)


def multilabel_scores(gold: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Scores any number of labels per example, bool[examples, labels].

    Returns:
      As `classification_scores`; "accuracy" is the share of examples with exactly the gold label set.
    """
    counts = {
        name: np.array([np.sum(gold[:, n] & predicted[:, n]), np.sum(predicted[:, n]), np.sum(gold[:, n])])
        for n, name in enumerate(labels)
    }
    exact = 100 * float(np.mean((gold == predicted).all(axis=1)))
    return {"accuracy": exact} | micro_scores(counts) | _macro(counts)


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
    """Returns micro-averaged precision, recall and F1, and F1 of each class if there are several.

    Args:
      counts: int64[3] per class: true positives, predicted, gold.
    """
    pooled = sum(counts.values(), np.zeros(3, np.int64))
    scores = dict(zip(("precision", "recall", "f1"), _precision_recall_f1(pooled), strict=True))
    if len(counts) > 1:
        scores |= {f"f1/{name}": _precision_recall_f1(counts[name])[2] for name in sorted(counts)}
    return scores


def _macro(counts: dict[str, np.ndarray]) -> dict[str, float]:
    return {"macro_f1": float(np.mean([_precision_recall_f1(one)[2] for one in counts.values()]))}


def _precision_recall_f1(counts: np.ndarray) -> tuple[float, float, float]:
    correct, predicted, gold = (float(count) for count in counts)
    precision = 100 * correct / predicted if predicted else 0.0
    recall = 100 * correct / gold if gold else 0.0
    return precision, recall, 200 * correct / (predicted + gold) if predicted + gold else 0.0
