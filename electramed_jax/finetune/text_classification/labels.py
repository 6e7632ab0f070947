"""What the logits of a text say."""

from __future__ import annotations

import math

import numpy as np

from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head


def labels_above(logits: np.ndarray, threshold: float) -> np.ndarray:
    """bool: the labels whose probability, each by itself, is above the threshold."""
    return logits > math.log(threshold / (1 - threshold))


def predicted_labels(logits: np.ndarray, head: Head, threshold: float) -> list[str | list[str] | float]:
    """Of each text its label, its labels, or its number.

    Args:
      logits: float[texts, labels].
      threshold: see `labels_above`; of a "sigmoid".
    """
    if head.loss == SQUARED:
        return logits[:, 0].tolist()
    if head.loss == SIGMOID:
        return [np.array(head.labels)[row].tolist() for row in labels_above(logits, threshold)]
    return [head.labels[number] for number in logits.argmax(axis=-1)]


def probabilities(logits: np.ndarray, head: Head) -> np.ndarray:
    """float64 of the same shape: of a "softmax" over the labels, else of each label by itself."""
    logits = np.asarray(logits, np.float64)
    if head.loss == SOFTMAX:
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)
    return 1 / (1 + np.exp(-logits))
