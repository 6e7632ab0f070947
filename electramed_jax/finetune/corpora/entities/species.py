"""Linnaeus (100 full-text articles) and Species-800 (800 abstracts): mentions of species."""

from __future__ import annotations

from collections.abc import Iterator

from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import find_file, find_folder
from electramed_jax.finetune.ner import standoff
from electramed_jax.finetune.ner.words import Span
from electramed_jax.finetune.task import split_files

LISTS = {"train": "split/train.txt", "dev": "split/devel.txt", "test": "split/test.txt"}
SPLITS = "lists of documents (split/train.txt, devel.txt, test.txt) of github.com/spyysalo, used by BioBERT"
SPECIES = "Species"
SETTINGS = {"task.max_seq_length": 128, "batch_size": 32, "epochs": 10.0, "optimizer.learning_rate": 1e-4}


def _read_linnaeus(folder: str) -> Splits:
    """Reads tags.tsv: species id, document, start, end, text, code."""
    path = find_file(folder, "tags.tsv")
    spans: dict[str, list[Span]] = {}
    for number, columns in _columns(path):
        if columns[0].startswith("#"):
            continue
        if len(columns) < 5 or not columns[2].isdecimal() or not columns[3].isdecimal():
            split_files.reject_line(path, number, f"{columns}; wanted SPECIES, DOCUMENT, START, END, TEXT, CODE")
        spans.setdefault(columns[1], []).append(Span(int(columns[2]), int(columns[3]), SPECIES))
    return _splits(folder, find_folder(folder, "txt"), spans, {})


def _read_s800(folder: str) -> Splits:
    """Reads S800.tsv: species id, DOCUMENT:PMID, first character, last character, text."""
    path = find_file(folder, "S800.tsv")
    spans: dict[str, list[Span]] = {}
    names: dict[str, str] = {}
    for number, columns in _columns(path):
        if len(columns) < 5 or ":" not in columns[1] or not columns[2].isdecimal() or not columns[3].isdecimal():
            split_files.reject_line(path, number, f"{columns}; wanted SPECIES, DOCUMENT:PMID, FIRST, LAST, TEXT")
        document, pmid = columns[1].split(":", 1)
        names[pmid] = document
        spans.setdefault(pmid, []).append(Span(int(columns[2]), int(columns[3]) + 1, SPECIES))
    return _splits(folder, find_folder(folder, "abstracts"), spans, names)


def _columns(path: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(split_files.read_lines(path), 1):
        if line.strip():
            yield number, line.split("\t")


def _splits(folder: str, text_folder: str, spans: dict[str, list[Span]], names: dict[str, str]) -> Splits:
    """Returns the lines of the texts of each list; `names` are files that are not named after their document."""
    splits: dict[str, list[Row]] = {}
    for split, name in LISTS.items():
        rows = splits[split] = []
        for document in split_files.read_lines(find_file(folder, name)):
            if document := document.strip():
                text = files.read_text(files.join(text_folder, f"{names.get(document, document)}.txt"))
                for sentence in standoff.split_lines(text, spans.get(document, [])):
                    entities = [{"start": s.start, "end": s.stop, "type": s.type} for s in sentence.spans]
                    rows.append({"id": document, "text": sentence.text, "entities": entities})
    return splits


LINNAEUS = Corpus(
    name="linnaeus",
    kind=NER,
    home="http://linnaeus.sourceforge.net/ (manual-corpus-species-1.1.tar.gz)",
    licence="see the page of the corpus",
    files={"train": "tags.tsv, txt/*.txt (standoff)", "lists": ", ".join(LISTS.values())},
    splits=SPLITS,
    labels=(SPECIES,),
    measure="entity F1 (f1)",
    read=_read_linnaeus,
    settings=SETTINGS,
    settings_source="google-research/electra configure_finetuning.py, more epochs because the corpus is small",
    traps=("Texts are lines of full-text articles: most have no species.",),
)
S800 = Corpus(
    name="species-800",
    kind=NER,
    home="https://species.jensenlab.org/ (S800-1.0.tar.gz)",
    licence="see the page of the corpus",
    files={
        "train": "S800.tsv, abstracts/*.txt (standoff, last characters included)",
        "lists": ", ".join(LISTS.values()),
    },
    splits=SPLITS,
    labels=(SPECIES,),
    measure="entity F1 (f1)",
    read=_read_s800,
    settings=SETTINGS,
    settings_source="google-research/electra configure_finetuning.py, more epochs because the corpus is small",
    traps=("The lists hold PMIDs, the files of the abstracts have names of their own.",),
)
