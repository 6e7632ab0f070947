"""PubMedQA: does the abstract answer the question in its title with yes, no or maybe? 1,000 labelled questions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import GENUINE, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file
from electramed_jax.finetune.text_classification import json_records

ANSWERS = ("yes", "no", "maybe")
FOLDS = 10


def _read(folder: str, second: str) -> Splits:
    path = find_file(folder, "ori_pqal.json")
    labels = {key: record["final_decision"] for key, record in files.read_json(path).items()}
    train, dev, test = split_ids(labels)
    truth = set(files.read_json(find_file(folder, "test_ground_truth.json")))
    if set(test) != truth:
        raise UserError(
            f"{path}: the split of its authors gives other test questions than test_ground_truth.json "
            f"({len(set(test) & truth)} of {len(truth)} are the same); download both files again"
        )
    records = dict(zip(labels, (row for _, row in json_records.read_rows(path)), strict=True))
    return {
        split: [_row(key, records[key], second) for key in ids]
        for split, ids in (("train", train), ("dev", dev), ("test", test))
    }


def _row(key: str, record: Row, second: str) -> Row:
    return {
        "id": key,
        "sentence1": record["question"],
        "sentence2": record[second],
        "label": record["final_decision"],
    }


def split_ids(labels: dict[str, str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the ids of train, dev and test: fold 0 of the authors' split, which their script makes with seed 0.

    Half of the questions are test; of the other half, fold 0 of ten is dev. Each answer is divided by itself.
    """
    generator = random.Random(0)
    cross_validation, test = _split(labels, list(labels), 2, generator)
    folds = _split(labels, cross_validation, FOLDS, generator)
    return [key for fold in folds[1:] for key in fold], folds[0], test


def _split(labels: dict[str, str], ids: Sequence[str], count: int, generator: random.Random) -> list[list[str]]:
    """Returns `count` parts with the same shares of each answer; a smaller last part is filled from the others."""
    parts: list[list[str]] = [[] for _ in range(count)]
    for answer in ANSWERS:
        shuffled = [key for key in ids if labels[key] == answer]
        generator.shuffle(shuffled)
        size = math.ceil(len(shuffled) / count)
        for number, part in enumerate(parts):
            part += shuffled[number * size : len(shuffled) if number == count - 1 else (number + 1) * size]
    if len(parts[-1]) != len(parts[0]):
        for part in parts[:-1]:
            picked = generator.choice(part)
            part.remove(picked)
            parts[-1].append(picked)
    return parts


def _corpus(name: str, second: str, what: str) -> Corpus:
    return Corpus(
        name=name,
        kind="classification",
        home="https://pubmedqa.github.io/ (github.com/pubmedqa/pubmedqa)",
        licence="MIT",
        files={"train": "data/ori_pqal.json", "test": "data/test_ground_truth.json"},
        splits="500 test questions and fold 0 of the authors' ten folds, by their script's seed",
        labels=ANSWERS,
        measure="accuracy, and macro F1 (macro_f1)",
        read=lambda folder: _read(folder, second),
        settings={
            "task.max_seq_length": 512,
            "batch_size": 32,
            "epochs": 20.0,
            "optimizer.learning_rate": 5e-5,
        },
        settings_source="BioELECTRA (large): kamalkraj/electra configs/base_*.json",
        traps=(
            f"The second text is {what}.",
            "Scores with the long answer (reasoning-free) are not those of the task (reasoning-required).",
            "The training set has 450 questions: seeds differ by several points.",
        ),
        counts={"train": {"rows": 450}, "dev": {"rows": 50}, "test": {"rows": 500}},
        counts_source="the authors' script preprocess/split_dataset.py",
        checked=GENUINE,
    )


CONTEXT = _corpus("pubmedqa", "context", "the abstract without its conclusion")
LONG_ANSWER = _corpus("pubmedqa-long-answer", "long_answer", "the conclusion of the abstract")
