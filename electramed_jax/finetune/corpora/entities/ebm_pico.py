"""EBM-PICO (EBM-NLP): participants, interventions and outcomes in 4,993 abstracts of clinical trials."""

from __future__ import annotations

from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_folder, split_by_hash
from electramed_jax.finetune.task import split_files

ELEMENTS = {"participants": "PAR", "interventions": "INT", "outcomes": "OUT"}
SPANS = "annotations/aggregated/starting_spans"
PARTS = {"train": "train", "test": "test/gold"}
DEV_FRACTION = 0.1


def _read(folder: str) -> Splits:
    texts, spans = find_folder(folder, "documents"), find_folder(folder, SPANS)
    rows = {split: _rows(texts, spans, part) for split, part in PARTS.items()}
    train, dev = split_by_hash(rows["train"], DEV_FRACTION)
    return {"train": train, "dev": dev, "test": rows["test"]}


def _rows(texts: str, spans: str, part: str) -> list[Row]:
    """Returns the documents of a part with a tag per word; of two elements of a word the first of `ELEMENTS` counts."""
    tags: dict[str, list[str]] = {}
    words: dict[str, list[str]] = {}
    for element, kind in ELEMENTS.items():
        folder = files.join(spans, element, part)
        for name in (name for name in files.list_dir(folder) if name.endswith(".ann")):
            pmid = name.replace("_", ".").split(".")[0]
            if pmid not in words:
                words[pmid] = files.read_text(files.join(texts, f"{pmid}.tokens")).split()
                tags[pmid] = ["O"] * len(words[pmid])
            labels = files.read_text(files.join(folder, name)).replace(",", " ").split()
            if len(labels) != len(words[pmid]):
                split_files.reject_line(
                    files.join(folder, name), 1, f"{len(labels)} labels; {pmid}.tokens has {len(words[pmid])} words"
                )
            for place, label in enumerate(labels):
                if label != "0" and tags[pmid][place] == "O":
                    tags[pmid][place] = f"I-{kind}"
    return [{"id": pmid, "tokens": words[pmid], "ner_tags": tags[pmid]} for pmid in sorted(words)]


CORPUS = Corpus(
    name="ebm-pico",
    kind=NER,
    home="https://github.com/bepnye/EBM-NLP (ebm_nlp_1_00.tar.gz)",
    licence="no licence is stated",
    files={
        "train": f"documents/PMID.tokens, {SPANS}/ELEMENT/train/PMID_AGGREGATED.ann (a number per word)",
        "test": f"{SPANS}/ELEMENT/test/gold/*.ann",
    },
    splits="train and test (experts) of the corpus; dev is a tenth of train, by a hash of the PMID (it has none)",
    labels=tuple(ELEMENTS.values()),
    measure="F1 of the words of each element, averaged (word_macro_f1), as in BLURB; f1 is of whole spans",
    read=_read,
    settings={
        "task.primary": "word_macro_f1",
        "task.max_seq_length": 256,
        "batch_size": 32,
        "epochs": 3.0,
        "optimizer.learning_rate": 2e-4,
    },
    settings_source="BioELECTRA: kamalkraj/electra configs/base_*.json",
    traps=(
        "A word may belong to two elements: here the first of participants, interventions, outcomes counts.",
        "BLURB's measure is by word: word_macro_f1, not f1, which is of whole spans.",
    ),
)
