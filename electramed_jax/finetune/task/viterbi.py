"""Best sequence of labels under scores of single labels and of transitions between neighbours."""

from __future__ import annotations

import numpy as np


def best_path(scores: np.ndarray, transitions: np.ndarray) -> np.ndarray:
    """Returns the label of each place, int64[n], with the highest sum of scores (Viterbi); the first among equals.

    Args:
      scores: float[n, K] of each label at each place.
      transitions: float[K + 1, K]: row i is the score of each label after label i, row K of each label at the first
        place; -inf forbids a transition.
    """
    if not len(scores):
        return np.zeros(0, np.int64)
    best = transitions[-1] + scores[0]
    from_label = np.zeros(scores.shape, np.int64)
    for place in range(1, len(scores)):
        candidates = best[:, None] + transitions[:-1]
        from_label[place] = candidates.argmax(axis=0)
        best = candidates.max(axis=0) + scores[place]
    path = [int(best.argmax())]
    for place in range(len(scores) - 1, 0, -1):
        path.append(int(from_label[place, path[-1]]))
    return np.array(path[::-1], np.int64)
