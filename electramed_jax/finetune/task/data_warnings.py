"""Warnings about the splits of a corpus that make scores too high or meaningless."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from electramed_jax.finetune.task.task import SPLITS, TEST, TRAIN

_SHOWN = 10  # labels named in a warning


def warn_same_files(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a warning for each pair of splits with the same file.

    Args:
      files: from `split_files.describe_files`; of a split with several files, by "test 1", "test 2".
    """
    warnings = []
    of_splits = [(name, file) for name, file in files.items() if name.split()[0] in SPLITS]
    for (first, one), (second, other) in itertools.combinations(of_splits, 2):
        splits = first.split()[0], second.split()[0]
        if splits[0] != splits[1] and one["sha256"] == other["sha256"]:
            meaning = (
                f"the scores of {splits[1]} are those of examples that were trained on"
                if TRAIN in splits
                else f"the scores of {TEST} are those of the examples that chose the checkpoint"
            )
            warnings.append(f"{first} and {second} are the same file ({one['path']}, {other['path']}): {meaning}")
    return warnings


def warn_shared_examples(
    keys: Mapping[str, Sequence[Hashable]], labels: Mapping[str, Sequence[Hashable]], plural: str = "examples"
) -> list[str]:
    """Returns a warning for each pair of splits that share examples.

    Args:
      keys: what identifies the examples of a split, such as their texts.
      labels: labels of the same examples; those of a shared one may differ between the splits.
      plural: what an example is called.
    """
    warnings = []
    for first, second in itertools.combinations(keys, 2):
        known: dict[Hashable, set[Hashable]] = {}
        for key, label in zip(keys[first], labels[first], strict=True):
            known.setdefault(key, set()).add(label)
        shared = [(key, label) for key, label in zip(keys[second], labels[second], strict=True) if key in known]
        if shared:
            total = len(keys[second])
            differ = sum(label not in known[key] for key, label in shared)
            relabelled = f", {differ:,} of them with another label" if differ else ""
            warnings.append(
                f"{len(shared):,} of {total:,} {second} {plural} ({len(shared) / total:.2%}) are in {first} "
                f"too{relabelled}: scores of {second} may be too high"
            )
    return warnings


def warn_unknown_labels(split: str, known: Sequence[str], labels: Sequence[Sequence[str]], plural: str) -> list[str]:
    """Returns a warning if a split has labels that no training example has.

    Args:
      known: labels of the training examples.
      labels: those of each example of the split.
      plural: what an example is called.
    """
    unknown = [of_example for of_example in labels if not set(of_example) <= set(known)]
    if not unknown:
        return []
    counts = count_labels([[label for label in of_example if label not in known] for of_example in unknown])
    return [
        f"{len(unknown):,} of {len(labels):,} {split} {plural} have a label that no training example has "
        f"({_listed(counts)}): they count as missed"
    ]


def warn_label_support(split: str, scored: Sequence[str], labels: Sequence[Sequence[str]], plural: str) -> list[str]:
    """Returns a warning if a split cannot show how well a model predicts some labels.

    Args:
      scored: labels that count for the scores.
      labels: those of each example of the split.
      plural: what an example is called.
    """
    counts = count_labels(labels)
    absent = [label for label in scored if not counts[label]]
    if len(absent) == len(scored):
        meaning = "a model learns none" if split == TRAIN else "its F1 is 0 whatever a model predicts"
        return [f"{split} has no {plural} of any label that is scored: {meaning}"]
    if len(set(map(tuple, labels))) == 1:
        return [
            f"all {len(labels):,} {plural} of {split} have the label {', '.join(labels[0])}: a model that always "
            "predicts it cannot be distinguished from a good one"
        ]
    if absent:
        them = "it" if len(absent) == 1 else "them"
        meaning = f"a model cannot learn {them}" if split == TRAIN else f"its scores mean nothing for {them}"
        return [f"{split} has no {plural} of {_listed(absent)}: {meaning}"]
    return []


def count_labels(labels: Sequence[Sequence[str]]) -> collections.Counter[str]:
    """Returns how many examples have each label; an example may have several."""
    return collections.Counter(label for of_example in labels for label in of_example)


def _listed(labels: Mapping[str, int] | Sequence[str]) -> str:
    named = [f"{label} {labels[label]:,}" for label in labels] if isinstance(labels, Mapping) else list(labels)
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
