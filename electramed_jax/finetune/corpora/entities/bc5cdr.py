"""BC5CDR: chemicals and diseases in 1,500 abstracts, two corpora of one type each, as BLURB uses them."""

from __future__ import annotations

from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Splits
from electramed_jax.finetune.corpora.spec.source import entity_rows, find_file
from electramed_jax.finetune.ner import standoff

FILES = {"train": "CDR_TrainingSet.PubTator.txt", "dev": "CDR_DevelopmentSet.PubTator.txt",
         "test": "CDR_TestSet.PubTator.txt"}  # fmt: skip


def _read(folder: str, kind: str) -> Splits:
    return {
        split: entity_rows(standoff.read_pubtator_documents(find_file(folder, name)), {kind: kind})
        for split, name in FILES.items()
    }


def _corpus(name: str, kind: str, entities: dict[str, int], settings: dict[str, float]) -> Corpus:
    return Corpus(
        name=name,
        kind=NER,
        home="http://www.biocreative.org/tasks/biocreative-v/track-3-cdr/ (CDR_Data.zip)",
        licence="Public Domain Mark 1.0 (US Government work)",
        files={split: f"{file} (PubTator)" for split, file in FILES.items()},
        splits="the three files of the task, 500 abstracts each",
        labels=(kind,),
        measure="entity F1 (f1)",
        read=lambda folder: _read(folder, kind),
        settings={"task.max_seq_length": 256, "batch_size": 16, "epochs": 5.0, **settings},
        settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
        traps=(
            "SciBERT's and ELECTRAMed's files merge both types into one: other scores.",
            "Titles and abstracts are whole texts here; BLURB's files are split into sentences.",
            "Some mentions overlap: the longer one is trained on, and the shorter one counts as missed in text_f1.",
        ),
        counts={split: {"documents": 500, "entities": number} for split, number in entities.items()},
        counts_source="mentions of the PubTator files",
    )


CHEMICAL = _corpus(
    "bc5-chemical", "Chemical", {"train": 5203, "dev": 5347, "test": 5385}, {"optimizer.learning_rate": 2e-4}
)
DISEASE = _corpus(
    "bc5-disease", "Disease", {"train": 4182, "dev": 4244, "test": 4424}, {"optimizer.learning_rate": 1e-4}
)
