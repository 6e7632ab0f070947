"""BC4CHEMD (CHEMDNER): mentions of chemicals in 10,000 abstracts."""

from __future__ import annotations

from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file
from electramed_jax.finetune.task import split_files

NAMES = {"train": "training", "dev": "development", "test": "evaluation"}
PARTS = ("T", "A")  # title and abstract in the annotations


def _read(folder: str) -> Splits:
    return {
        split: _rows(find_file(folder, f"{name}.abstracts.txt"), find_file(folder, f"{name}.annotations.txt"))
        for split, name in NAMES.items()
    }


def _rows(texts_path: str, mentions_path: str) -> list[Row]:
    """Returns titles and abstracts; a mention is PMID, T or A, start, end, text, class."""
    mentions: dict[tuple[str, str], list[Row]] = {}
    for number, line in enumerate(split_files.read_lines(mentions_path), 1):
        columns = line.split("\t")
        if len(columns) < 5 or columns[1] not in PARTS or not (columns[2] + columns[3]).isdecimal():
            split_files.reject_line(
                mentions_path, number, f"{line[:60]!r}; wanted PMID, T or A, START, END, TEXT, CLASS"
            )
        entity = {"start": int(columns[2]), "end": int(columns[3]), "type": "Chemical"}
        mentions.setdefault((columns[0], columns[1]), []).append(entity)
    rows = []
    for number, line in enumerate(split_files.read_lines(texts_path), 1):
        columns = line.split("\t")
        if len(columns) != 3:
            split_files.reject_line(texts_path, number, f"{len(columns)} columns; wanted PMID, title, abstract")
        for part, text in zip(PARTS, columns[1:], strict=True):
            rows.append({"id": columns[0], "text": text, "entities": mentions.get((columns[0], part), [])})
    return rows


CORPUS = Corpus(
    name="bc4chemd",
    kind=NER,
    home="https://biocreative.bioinformatics.udel.edu/resources/biocreative-iv/chemdner-corpus/",
    licence="see the page of the corpus",
    files={split: f"{name}.abstracts.txt, {name}.annotations.txt (tab-separated)" for split, name in NAMES.items()},
    splits="the three parts of the task",
    labels=("Chemical",),
    measure="entity F1 (f1), the classes of mentions merged into one",
    read=_read,
    settings={"task.max_seq_length": 256, "batch_size": 16, "epochs": 5.0, "optimizer.learning_rate": 2e-4},
    settings_source="those of BioELECTRA for BC5CDR's chemicals: kamalkraj/electra configs/base_*.json",
    traps=("Titles and abstracts are whole texts here; other files are split into sentences.",),
)
