"""Scores of entities, classes and numbers. Percentages from 0 to 100."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def classes(
    gold: Sequence[int], predicted: Sequence[int], labels: Sequence[str], counted: Sequence[str] | None = None
) -> dict[str, float]:
    """One class an example: accuracy; micro precision, recall and F1 of the `counted` classes (relations: all that are
    not "no relation"; None: all), their F1 one by one ("f1/...") and the mean of those (macro)."""
    wanted, got = np.asarray(gold), np.asarray(predicted)
    counts = {
        name: np.array([np.sum((got == n) & (wanted == n)), np.sum(got == n), np.sum(wanted == n)])
        for n, name in enumerate(labels)
        if counted is None or name in counted
    }
    return {"accuracy": 100 * float(np.mean(wanted == got))} | _pooled(counts) | _macro(counts)


def label_sets(gold: np.ndarray, predicted: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """Any number of labels an example, bool[examples, labels]: micro and macro F1, and how often the whole set is right
    ("accuracy")."""
    counts = {
        name: np.array([np.sum(gold[:, n] & predicted[:, n]), np.sum(predicted[:, n]), np.sum(gold[:, n])])
        for n, name in enumerate(labels)
    }
    exact = 100 * float(np.mean((gold == predicted).all(axis=1)))
    return {"accuracy": exact} | _pooled(counts) | _macro(counts)


def numbers(gold: Sequence[float], predicted: Sequence[float]) -> dict[str, float]:
    """Pearson's and Spearman's correlation, times 100; 0 where one side is constant. And the mean squared error."""
    from scipy import stats  # comes with jax; kept off the start-up path

    wanted, got = np.asarray(gold, np.float64), np.asarray(predicted, np.float64)
    ranks = stats.rankdata(wanted), stats.rankdata(got)
    return {
        "pearson": 100 * _correlation(wanted, got),
        "spearman": 100 * _correlation(*ranks),
        "mean_squared_error": float(np.mean((wanted - got) ** 2)),
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """The mean of several runs, and their standard deviation (n - 1); 0 for one run."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size else 0.0


def _pooled(counts: dict[str, np.ndarray]) -> dict[str, float]:
    """Pooled precision, recall and F1, then F1 of each where there are several."""
    pooled = sum(counts.values(), np.zeros(3, np.int64))
    scores = dict(zip(("precision", "recall", "f1"), _precision_recall_f1(pooled), strict=True))
    if len(counts) > 1:
        scores |= {f"f1/{name}": _precision_recall_f1(counts[name])[2] for name in sorted(counts)}
    return scores


def _macro(counts: dict[str, np.ndarray]) -> dict[str, float]:
    return {"macro_f1": float(np.mean([_precision_recall_f1(one)[2] for one in counts.values()]))}


def _precision_recall_f1(counts: np.ndarray) -> tuple[float, float, float]:
    right, predicted, gold = (float(count) for count in counts)
    precision = 100 * right / predicted if predicted else 0.0
    recall = 100 * right / gold if gold else 0.0
    return precision, recall, 200 * right / (predicted + gold) if predicted + gold else 0.0
