"""BC2GM: mentions of genes and proteins in 20,000 sentences."""

from __future__ import annotations

from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import GENUINE, NER, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file
from electramed_jax.finetune.task import split_files

DEV_EVERY = 6  # 2,500 of the 15,000 training sentences


def _read(folder: str) -> Splits:
    train = _rows(find_file(folder, "train/train.in", "train.in"), find_file(folder, "train/GENE.eval"))
    return {
        "train": [row for number, row in enumerate(train) if number % DEV_EVERY],
        "dev": train[::DEV_EVERY],
        "test": _rows(find_file(folder, "test/test.in", "test.in"), find_file(folder, "test/GENE.eval")),
    }


def _rows(sentences_path: str, mentions_path: str) -> list[Row]:
    """Returns the sentences with their mentions.

    A mention is "ID|START END|TEXT": the characters before its first and before its last one, without white space.
    """
    mentions: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(split_files.read_lines(mentions_path), 1):
        identifier, _, rest = line.partition("|")
        place = rest.partition("|")[0].split()
        if len(place) != 2 or not all(part.isdecimal() for part in place):
            split_files.reject_line(mentions_path, number, f"{line[:60]!r}; wanted ID|START END|TEXT")
        mentions.setdefault(identifier, []).append((int(place[0]), int(place[1])))
    rows = []
    for line in files.read_text(sentences_path).splitlines():
        identifier, _, text = line.partition(" ")
        places = [place for place, character in enumerate(text) if not character.isspace()]
        entities = [
            {"start": places[start], "end": places[last] + 1, "type": "Gene"}
            for start, last in mentions.get(identifier, [])
        ]
        rows.append({"id": identifier, "text": text, "entities": entities})
    return rows


CORPUS = Corpus(
    name="bc2gm",
    kind=NER,
    home="https://biocreative.bioinformatics.udel.edu/resources/corpora/biocreative-ii-corpus/ "
    "(bc2GMtrain_1.1.tar.gz, bc2GMtest_1.0.tar.gz)",
    licence="see the NOTICE of the archives",
    files={
        "train": "train/train.in, train/GENE.eval (offsets without white space)",
        "test": "test/test.in, test/GENE.eval",
    },
    splits=f"train and test of the task; dev is every {DEV_EVERY}th training sentence (the task has none)",
    labels=("Gene",),
    measure="entity F1 (f1) of the first annotation; the task also accepts the alternatives of ALTGENE.eval",
    read=_read,
    settings={
        "task.max_seq_length": 512,
        "batch_size": 32,
        "epochs": 5.0,
        "optimizer.learning_rate": 2e-4,
    },
    settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
    traps=(
        "The dev sentences of MTL-Bioinformatics-2016 and BLURB are another choice.",
        "Scores with the alternatives of ALTGENE.eval are higher.",
    ),
    counts={"train": {"rows": 12500}, "dev": {"rows": 2500}, "test": {"rows": 5000, "entities": 6331}},
    counts_source="lines of the original files",
    checked=GENUINE,
)
