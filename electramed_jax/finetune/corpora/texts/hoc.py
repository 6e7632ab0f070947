"""HoC: ten hallmarks of cancer in 1,852 abstracts, several labels for each."""

from __future__ import annotations

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import GENUINE, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file, find_folder, hash_fraction
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import hoc_folders

LISTS = {"train": "split/train.txt", "dev": "split/dev.txt", "test": "split/test.txt"}
DEV_FRACTION, TEST_FRACTION = 0.1, 0.2
LABELS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)


def _read(folder: str) -> Splits:
    root = find_folder(folder, hoc_folders.LABELS).removesuffix(f"/{hoc_folders.LABELS}")
    rows = [
        {"id": row["id"], "sentence": row["text"], "label": row["labels"]} for _, row in hoc_folders.read_rows(root)
    ]
    listed = {split: _listed(folder, name) for split, name in LISTS.items() if _has_lists(folder)}
    splits: dict[str, list[Row]] = {split: [] for split in LISTS}
    for row in rows:
        if listed:
            split = next((split for split, ids in listed.items() if row["id"] in ids), "")
            if not split:
                raise UserError(
                    f"{folder}: abstract {row['id']} is in none of {', '.join(LISTS.values())}; complete them"
                )
        else:
            fraction = hash_fraction(row["id"])
            split = (
                "test" if fraction < TEST_FRACTION else "dev" if fraction < TEST_FRACTION + DEV_FRACTION else "train"
            )
        splits[split].append(row)
    return splits


def _has_lists(folder: str) -> bool:
    return any(files.exists(files.join(folder, name)) for name in LISTS.values())


def _listed(folder: str, name: str) -> set[str]:
    return {line.strip() for line in split_files.read_lines(find_file(folder, name))}


CORPUS = Corpus(
    name="hoc",
    kind="multilabel",
    home="https://github.com/sb895/Hallmarks-of-Cancer",
    licence="GPL-3.0",
    files={
        "train": "text/PMID.txt (a sentence per line), labels/PMID.txt (labels of each sentence after a '<')",
        "lists": f"{', '.join(LISTS.values())} with a PMID per line, if you have those of BLUE or BLURB",
    },
    splits="by the lists; without them a tenth is dev and a fifth is test, by a hash of the PMID",
    labels=LABELS,
    measure="F1 over all labels of all abstracts (f1), as in BLURB; BLUE averages the F1 of each abstract",
    read=_read,
    settings={
        "task.max_seq_length": 512,
        "batch_size": 32,
        "epochs": 40.0,
        "optimizer.learning_rate": 4e-5,
    },
    settings_source="BioLinkBERT: src/run_examples_blurb_biolinkbert-base.sh",
    traps=(
        "An example is an abstract here. Papers train on sentences and join the labels of an abstract's sentences.",
        "Without the lists of BLUE the splits are others, so no published score compares.",
    ),
    checked=GENUINE,
)
