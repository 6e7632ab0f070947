"""F1 of entities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.task.metrics import micro_scores

Tags = Sequence[Sequence[str]]  # a tag a word, for each sentence


def entity_scores(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, pooled over types (micro): an entity is right where its first word,
    its last word and its type are. Equal to seqeval's in its default mode.

    Also with all types taken for one ("merged_..."), and F1 by type ("f1/Disease") where there are several.
    """
    scores = micro_scores(_by_type(gold, predicted))
    merged = _by_type(_without_types(gold), _without_types(predicted))
    return scores | {f"merged_{name}": value for name, value in micro_scores(merged).items()}


def _by_type(gold: Tags, predicted: Tags) -> dict[str, np.ndarray]:
    """(right, predicted, gold) by type."""
    counts: dict[str, np.ndarray] = {}
    for wanted_tags, got_tags in zip(gold, predicted, strict=True):
        assert len(wanted_tags) == len(got_tags), "a sentence has lost words"
        wanted, got = set(tags.decode(wanted_tags)), set(tags.decode(got_tags))
        for column, found in enumerate((wanted & got, got, wanted)):
            for entity in found:
                counts.setdefault(entity.type, np.zeros(3, np.int64))[column] += 1
    return counts


def _without_types(sentences: Tags) -> list[list[str]]:
    return [[tags.split_tag(tag)[0] for tag in sentence] for sentence in sentences]
