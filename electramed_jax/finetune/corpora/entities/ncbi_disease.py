"""NCBI-disease: mentions of diseases in 793 abstracts."""

from __future__ import annotations

from electramed_jax.finetune.corpora.spec.corpus import GENUINE, NER, Corpus, Splits
from electramed_jax.finetune.corpora.spec.source import entity_rows, find_file
from electramed_jax.finetune.ner import standoff

FILES = {"train": "NCBItrainset_corpus.txt", "dev": "NCBIdevelopset_corpus.txt", "test": "NCBItestset_corpus.txt"}
KINDS = dict.fromkeys(("SpecificDisease", "DiseaseClass", "CompositeMention", "Modifier"), "Disease")


def _read(folder: str) -> Splits:
    return {
        split: entity_rows(standoff.read_pubtator_documents(find_file(folder, name)), KINDS)
        for split, name in FILES.items()
    }


CORPUS = Corpus(
    name="ncbi-disease",
    kind=NER,
    home="https://www.ncbi.nlm.nih.gov/CBBresearch/Dogan/DISEASE/",
    licence="public domain (US Government work)",
    files={split: f"{name} (PubTator)" for split, name in FILES.items()},
    splits="the three files of the corpus",
    labels=("Disease",),
    measure="entity F1 (f1), the four types of mentions merged into one",
    read=_read,
    settings={
        "task.max_seq_length": 128,
        "batch_size": 32,
        "epochs": 5.0,
        "optimizer.learning_rate": 2e-4,
    },
    settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
    traps=(
        "One abstract is twice in the training file.",
        "Files of MTL-Bioinformatics-2016 have 5,134 entities in train, not 5,145.",
        "Titles and abstracts are whole texts here; BLURB's files are split into sentences.",
    ),
    counts={"train": {"entities": 5145}, "dev": {"entities": 787}, "test": {"entities": 960}},
    counts_source="mentions of the PubTator files",
    checked=GENUINE,
)
