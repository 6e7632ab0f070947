"""Corpora in the tables of BLUE, BioBERT and MedNLI: train, dev and test files that are read as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electramed_jax.finetune.corpora.spec.corpus import GENUINE, INVENTED, Corpus, Splits
from electramed_jax.finetune.corpora.spec.source import find_file, split_by_hash, table_rows

BLUE = "https://github.com/ncbi-nlp/BLUE_Benchmark/releases"
ELECTRA = "google-research/electra configure_finetuning.py"
BIOELECTRA = "BioELECTRA: kamalkraj/electra configs/base_*.json"
DEV_FRACTION = 0.1
_TABLES = {split: (f"{split}.tsv", f"{split}.csv") for split in ("train", "dev", "test")}


def _read(folder: str, names: Mapping[str, tuple[str, ...]]) -> Splits:
    splits = {split: table_rows(find_file(folder, *patterns)) for split, patterns in names.items()}
    if "dev" not in splits:
        splits["train"], splits["dev"] = split_by_hash(splits["train"], DEV_FRACTION)
    return splits


def _corpus(
    name: str,
    kind: str,
    home: str,
    licence: str,
    labels: tuple[str, ...],
    measure: str,
    settings: Mapping[str, Any],
    settings_source: str,
    *,
    names: Mapping[str, tuple[str, ...]] = _TABLES,
    splits: str = "those of the tables",
    traps: tuple[str, ...] = (),
    registration: str = "",
    checked: str = INVENTED,
) -> Corpus:
    return Corpus(
        name=name,
        kind=kind,
        home=home,
        licence=licence,
        registration=registration,
        files={split: " or ".join(patterns) for split, patterns in names.items()},
        splits=splits,
        labels=labels,
        measure=measure,
        read=lambda folder: _read(folder, names),
        settings=settings,
        settings_source=settings_source,
        traps=traps,
        checked=checked,
    )


_POSITIVE = "micro F1 over the positive classes (f1)"
CHEMPROT = _corpus(
    "chemprot", "relations", f"{BLUE} (tables), from BioCreative VI track 5", "Public Domain Mark 1.0",
    ("CPR:3", "CPR:4", "CPR:5", "CPR:6", "CPR:9", "false"), _POSITIVE,
    {"task.max_seq_length": 256, "batch_size": 32, "epochs": 5.0, "optimizer.learning_rate": 1e-4}, BIOELECTRA,
    traps=(
        "Placeholders follow the order of the mentions: the first is @CHEMICAL$, the second @GENE$, whatever they are.",
        "SciBERT's ChemProt has 13 labels and no negative class: another task.",
    ),
    checked=GENUINE,
)  # fmt: skip
DDI = _corpus(
    "ddi", "relations", f"{BLUE} (tables), from github.com/isegura/DDICorpus", "CC BY-NC 4.0",
    ("DDI-advise", "DDI-effect", "DDI-int", "DDI-mechanism", "DDI-false"), _POSITIVE,
    {"task.max_seq_length": 256, "batch_size": 32, "epochs": 3.0, "optimizer.learning_rate": 5e-5}, BIOELECTRA,
    traps=("dev of BLUE is a sample of sentences, so one document may be in train and in dev.",),
    checked=GENUINE,
)  # fmt: skip
GAD = _corpus(
    "gad", "classification", "https://github.com/dmis-lab/biobert (datasets.tar.gz, RE/GAD/FOLD)",
    "see the page of the corpus", ("0", "1"), "F1 of the class 1 (f1/1)",
    {"task.max_seq_length": 128, "task.primary": "f1/1", "batch_size": 32, "epochs": 5.0,
     "optimizer.learning_rate": 2e-4}, BIOELECTRA,
    names={"train": ("train.tsv",), "test": ("test.tsv",)},
    splits="one of BioBERT's ten folds; a tenth of train is dev, by a hash of the line",
    traps=(
        "train.tsv has no header, test.tsv has one.",
        "Labels were made automatically from a database; BLURB uses its own split.",
    ),
)  # fmt: skip
BIOSSES = _corpus(
    "biosses", "similarity", f"{BLUE} (tables)", "see the page of the corpus", (), "Pearson's correlation (pearson)",
    {"task.max_seq_length": 128, "batch_size": 16, "epochs": 60.0, "optimizer.learning_rate": 1.5e-4}, BIOELECTRA,
    traps=("100 pairs in all: seeds differ by many points, report at least ten.",),
)  # fmt: skip
MEDSTS = _corpus(
    "medsts", "similarity", f"{BLUE} (tables), from the organizers of MedSTS", "data use agreement", (),
    "Pearson's correlation (pearson)",
    {"task.max_seq_length": 128, "batch_size": 32, "epochs": 10.0, "optimizer.learning_rate": 1e-4}, ELECTRA,
    registration="data use agreement with the organizers",
)  # fmt: skip
MEDNLI = _corpus(
    "mednli", "classification", "https://physionet.org/content/mednli/", "PhysioNet credentialed health data licence",
    ("contradiction", "entailment", "neutral"), "accuracy",
    {"task.max_seq_length": 256, "batch_size": 32, "epochs": 5.0, "optimizer.learning_rate": 1e-4}, ELECTRA,
    names={split: (f"mli_{split}_v*.jsonl",) for split in ("train", "dev", "test")},
    splits="the three files of the corpus", registration="PhysioNet credentials",
)  # fmt: skip
CORPORA = (CHEMPROT, DDI, GAD, BIOSSES, MEDSTS, MEDNLI)
