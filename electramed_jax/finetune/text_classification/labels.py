"""Labels and probabilities from the logits of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head


def labels_above(logits: np.ndarray, threshold: float) -> np.ndarray:
    """Returns bool[texts, labels]: whether a label's sigmoid probability is above the threshold."""
    return logits > math.log(threshold / (1 - threshold))


def predicted_labels(logits: np.ndarray, head: Head, threshold: float) -> Sequence[str | list[str] | float]:
    """Converts logits to predictions, one per text.

    Args:
      logits: float[texts, labels].
      threshold: see `labels_above`; used with a sigmoid.

    Returns:
      The arg-max label (softmax), all labels above `threshold` (sigmoid), or the value (squared).
    """
    if head.loss == SQUARED:
        return logits[:, 0].tolist()
    if head.loss == SIGMOID:
        return [np.array(head.labels)[row].tolist() for row in labels_above(logits, threshold)]
    return [head.labels[index] for index in logits.argmax(axis=-1)]


def compute_probabilities(logits: np.ndarray, head: Head) -> np.ndarray:
    """Returns float64 of the shape of `logits`: softmax over the labels, or the sigmoid of each."""
    logits = np.asarray(logits, np.float64)
    if head.loss == SOFTMAX:
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)
    return 1 / (1 + np.exp(-logits))
