"""Precision, recall and F1 of entities, by words of the file and by characters of the text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.ner.words import Span
from electramed_jax.finetune.task.metrics import micro_scores

Tags = Sequence[Sequence[str]]  # of each sentence, one tag per word


def entity_scores(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Returns micro-averaged precision, recall and F1 of entities, equal to seqeval's in its default mode.

    An entity is correct if its first word, its last word and its type are. "merged_..." are the scores with all types
    merged into one. "strict_..." are those of seqeval with mode="strict" and scheme=IOB2, for gold tags in IOB2: a
    predicted entity counts only if it begins with B-. "f1/Disease" is the F1 of a type, if there are several.
    """
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        assert len(gold_tags) == len(predicted_tags), "a sentence has another number of words"
    scores = micro_scores(_by_type(map(tags.decode, gold), map(tags.decode, predicted)))
    without_types = (map(tags.decode, _without_types(of_one)) for of_one in (gold, predicted))
    merged = micro_scores(_by_type(*without_types))
    strict = micro_scores(_by_type(map(tags.decode, gold), map(tags.decode_strict, predicted)))
    return (
        scores
        | {f"merged_{name}": value for name, value in merged.items()}
        | {f"strict_{name}": strict[name] for name in ("precision", "recall", "f1")}
    )


def text_scores(gold: Iterable[Sequence[Span]], predicted: Iterable[Sequence[Span]]) -> dict[str, float]:
    """Returns "text_precision", "text_recall" and "text_f1" of entities by their characters, micro-averaged.

    An entity is correct if its first character, its last character and its type are. `electramed predict` and Hugging
    Face's pipelines are scored in this way.
    """
    scores = micro_scores(_by_type(gold, predicted))
    return {f"text_{name}": scores[name] for name in ("precision", "recall", "f1")}


def word_scores(gold: Tags, predicted: Tags) -> dict[str, float]:
    """Returns "word_macro_f1", the F1 of the words of each type, averaged over the types: BLURB's measure of EBM-PICO.

    A word is correct if its type is, whatever its prefix. Words outside of entities are no type.
    """
    in_gold, in_predicted = (
        {(place, tags.split_tag(tag)[1]) for place, tag in enumerate(itertools.chain(*side)) if tag != tags.OUTSIDE}
        for side in (gold, predicted)
    )
    scores = []
    for kind in sorted({kind for _, kind in in_gold}):
        sizes = [sum(one == kind for _, one in words) for words in (in_gold & in_predicted, in_predicted, in_gold)]
        scores.append(200 * sizes[0] / (sizes[1] + sizes[2]))
    return {"word_macro_f1": sum(scores) / len(scores) if scores else 0.0}


def _by_type(gold: Iterable[Iterable[Any]], predicted: Iterable[Iterable[Any]]) -> dict[str, np.ndarray]:
    """Returns int64[3] by type: true positives, predicted, gold."""
    counts: dict[str, np.ndarray] = {}
    for of_gold, of_predicted in zip(gold, predicted, strict=True):
        in_gold, in_predicted = set(of_gold), set(of_predicted)
        for column, entities in enumerate((in_gold & in_predicted, in_predicted, in_gold)):
            for entity in entities:
                counts.setdefault(entity.type, np.zeros(3, np.int64))[column] += 1
    return counts


def _without_types(sentences: Tags) -> list[list[str]]:
    return [[tags.split_tag(tag)[0] for tag in sentence] for sentence in sentences]
