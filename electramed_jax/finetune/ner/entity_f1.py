"""Precision, recall and F1 of entities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.task.metrics import micro_scores

Tags = Sequence[Sequence[str]]  # of each sentence, one tag per word


def entity_scores(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Returns micro-averaged precision, recall and F1 of entities, equal to seqeval's in its default mode.

    An entity is correct if its first word, its last word and its type are. "merged_..." are the scores with all types
    merged into one. "f1/Disease" is the F1 of a type, if there are several.
    """
    scores = micro_scores(_by_type(gold, predicted))
    merged = _by_type(_without_types(gold), _without_types(predicted))
    return scores | {f"merged_{name}": value for name, value in micro_scores(merged).items()}


def _by_type(gold: Tags, predicted: Tags) -> dict[str, np.ndarray]:
    """Returns int64[3] by type: true positives, predicted, gold."""
    counts: dict[str, np.ndarray] = {}
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        assert len(gold_tags) == len(predicted_tags), "a sentence has another number of words"
        in_gold, in_predicted = set(tags.decode(gold_tags)), set(tags.decode(predicted_tags))
        for column, entities in enumerate((in_gold & in_predicted, in_predicted, in_gold)):
            for entity in entities:
                counts.setdefault(entity.type, np.zeros(3, np.int64))[column] += 1
    return counts


def _without_types(sentences: Tags) -> list[list[str]]:
    return [[tags.split_tag(tag)[0] for tag in sentence] for sentence in sentences]
