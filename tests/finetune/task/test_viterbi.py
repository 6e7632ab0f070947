"""The best sequence is the one that trying all of them finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.task import viterbi

LABELS = ("O", "B-X", "I-X", "B-Y", "I-Y")


def path_score(path, scores, transitions) -> float:
    first = transitions[-1, path[0]] + scores[0, path[0]]
    return first + sum(transitions[a, b] + scores[n, b] for n, (a, b) in enumerate(itertools.pairwise(path), 1))


@pytest.mark.parametrize("constrained", [False, True], ids=["free", "IOB2"])
def test_the_best_path_is_the_best_of_all(constrained):
    draw = np.random.default_rng(0)
    for words in (1, 2, 5):
        for _ in range(5):
            scores, transitions = draw.normal(size=(words, 5)), draw.normal(size=(6, 5))
            if constrained:
                transitions += tags.iob2_transitions(LABELS)
            every = list(itertools.product(range(5), repeat=words))
            best = max(every, key=lambda path: path_score(path, scores, transitions))
            assert tuple(viterbi.best_path(scores, transitions)) == best
    assert viterbi.best_path(np.zeros((0, 5)), transitions).tolist() == []


def test_the_constraint_is_what_strict_iob2_allows():
    """A sequence is allowed exactly if reading it strictly loses nothing."""
    transitions = tags.iob2_transitions(LABELS)
    for path in itertools.product(range(5), repeat=3):
        sequence = [LABELS[n] for n in path]
        allowed = np.isfinite(path_score(path, np.zeros((3, 5)), transitions))
        assert allowed == (tags.encode(tags.decode_strict(sequence), 3) == sequence)
