"""JNLPBA: molecular biology in 2,404 abstracts, with its five types, or merged into one as BLURB scores it."""

from __future__ import annotations

from collections.abc import Iterator

from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Splits
from electramed_jax.finetune.corpora.spec.source import find_file, tagged_rows
from electramed_jax.finetune.ner import conll
from electramed_jax.finetune.task import split_files

TRAIN = ("Genia4ERtask2.iob2", "Genia4ERtask1.iob2")
TEST = ("Genia4EReval2.iob2", "Genia4EReval1.iob2")
DEV_DOCUMENTS = 200  # the last ones of the training file


def _read(folder: str, merged: bool) -> Splits:
    train_path = find_file(folder, *TRAIN)
    first_dev_line = sorted(_document_lines(train_path))[-DEV_DOCUMENTS:][0]
    sentences = conll.read_sentences(train_path)
    parts = {
        "train": [one for one in sentences if one.line < first_dev_line],
        "dev": [one for one in sentences if one.line >= first_dev_line],
        "test": conll.read_sentences(find_file(folder, *TEST)),
    }
    rows = {split: tagged_rows(part) for split, part in parts.items()}
    for row in (row for part in rows.values() for row in part if merged):
        row["ner_tags"] = [tag[:1] + "-Entity" * (tag != "O") for tag in row["ner_tags"]]
    return rows


def _document_lines(path: str) -> Iterator[int]:
    """Yields the line of each "###MEDLINE:" mark."""
    for number, line in enumerate(split_files.read_lines(path), 1):
        if line.startswith(conll.DOCUMENT_MARKS):
            yield number


def _corpus(name: str, merged: bool) -> Corpus:
    types = "the five types merged into one, as in BLURB" if merged else "five types, as in most papers before BLURB"
    return Corpus(
        name=name,
        kind=NER,
        home="http://www.geniaproject.org/shared-tasks/bionlp-jnlpba-shared-task-2004",
        licence="GENIA licence (annotations CC BY 3.0)",
        files={"train": f"{TRAIN[0]} (IOB2 with ###MEDLINE marks)", "test": TEST[0]},
        splits=f"dev is the last {DEV_DOCUMENTS} of the 2,000 training abstracts, as in MTL-Bioinformatics-2016",
        labels=("Entity",) if merged else ("DNA", "RNA", "cell_line", "cell_type", "protein"),
        measure=f"entity F1 (f1); {types}",
        read=lambda folder: _read(folder, merged),
        settings={
            "task.max_seq_length": 256,
            "batch_size": 32,
            "epochs": 5.0,
            "optimizer.learning_rate": 2e-4,
        },
        settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
        traps=(
            "Scores of five types and of one merged type differ by about five points.",
            "18 % of the words of entities have punctuation inside: compare f1 with papers, text_f1 with predictions.",
        ),
        counts={
            "train": {"rows": 16807, "entities": 46750},
            "dev": {"rows": 1739, "entities": 4551},
            "test": {"rows": 3856, "entities": 8662},
        },
        counts_source="sentences and entities of the task's files",
    )


TYPED, MERGED = _corpus("jnlpba", merged=False), _corpus("jnlpba-merged", merged=True)
