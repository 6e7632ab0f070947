"""BioASQ yes/no: is the answer to the question yes or no, by the organizers' snippets?"""

from __future__ import annotations

from electramed_jax.finetune.corpora.spec.corpus import GENUINE, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file, split_by_hash
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import json_records

DEV_FRACTION = 0.1
GOLD_SUFFIXES = ("_golden.json", "_gold.json")


def _read(folder: str) -> Splits:
    train_path = find_file(folder, "training*b*.json", "BioASQ-training*b*.json", "training*b*.json.gz")
    golden = [path for path in split_files.list_files(folder) if path.endswith(GOLD_SUFFIXES)]
    if not golden:
        find_file(folder, f"*{GOLD_SUFFIXES[0]}")
    test = [row for path in golden for row in _rows(path)]
    test_questions = {row["sentence1"].lower() for row in test}
    train, dev = split_by_hash(
        [row for row in _rows(train_path) if row["sentence1"].lower() not in test_questions], DEV_FRACTION
    )
    return {"train": train, "dev": dev, "test": test}


def _rows(path: str) -> list[Row]:
    rows = []
    for line, row in json_records.read_rows(path):
        if row["label"] not in ("yes", "no"):
            split_files.reject_line(path, line, f"the answer is {row['label']!r}; wanted yes or no")
        question, context = row["question"], row["context"]
        rows.append({"id": question, "sentence1": question, "sentence2": context, "label": row["label"]})
    return rows


CORPUS = Corpus(
    name="bioasq-yesno",
    kind="classification",
    home="http://participants-area.bioasq.org/",
    licence="for registered participants (NLM licence)",
    registration="BioASQ participants' area",
    files={"train": "training7b.json (or another year)", "test": "7B1_golden.json ... 7B5_golden.json"},
    splits="golden batches are test; a tenth of the training questions is dev, by a hash; test questions leave train",
    labels=("yes", "no"),
    measure="accuracy, and macro F1 (macro_f1)",
    read=_read,
    settings={
        "task.max_seq_length": 512,
        "batch_size": 32,
        "epochs": 20.0,
        "optimizer.learning_rate": 2e-4,
    },
    settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
    traps=(
        "An example is a question with all its snippets; texts beyond 512 word pieces are truncated.",
        "Most answers are yes: compare the accuracy with that share.",
        "BLURB has a split of its own.",
    ),
    checked=GENUINE,
)
