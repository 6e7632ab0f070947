"""i2b2/VA 2010: problems, tests and treatments in discharge summaries."""

from __future__ import annotations

import re

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import NER, Corpus, Row, Splits
from electramed_jax.finetune.corpora.spec.source import split_by_hash
from electramed_jax.finetune.task import split_files

DEV_FRACTION = 0.1
_CONCEPT = re.compile(r'c="(.*)" (\d+):(\d+) (\d+):(\d+)\|\|t="(\w+)"')
_TEST_FOLDERS = ("test_data", "reference_standard")


def _read(folder: str) -> Splits:
    listed = split_files.list_files(folder)
    texts = {path.rsplit("/", 1)[-1].removesuffix(".txt"): path for path in listed if path.endswith(".txt")}
    concepts = [path for path in listed if path.endswith(".con")]
    if not concepts:
        raise UserError(f"{folder}: no .con files in it; unpack the archives of the task there")
    rows: dict[bool, list[Row]] = {False: [], True: []}
    for path in concepts:
        name = path.rsplit("/", 1)[-1].removesuffix(".con")
        if name not in texts:
            raise UserError(f"{path}: no {name}.txt below {folder}; unpack all archives of the task there")
        is_test = any(part in path.removeprefix(folder) for part in _TEST_FOLDERS)
        rows[is_test] += _rows(name, files.read_text(texts[name]), path)
    train, dev = split_by_hash(rows[False], DEV_FRACTION)
    return {"train": train, "dev": dev, "test": rows[True]}


def _rows(name: str, text: str, path: str) -> list[Row]:
    """Returns the lines of a record.

    A concept is c="TEXT" LINE:WORD LINE:WORD||t="TYPE", its first and last word; lines count from 1, words from 0.
    """
    lines = [line.split() for line in text.split("\n")]
    tags = [["O"] * len(words) for words in lines]
    for number, line in enumerate(files.read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        match = _CONCEPT.fullmatch(line.strip())
        if not match:
            split_files.reject_line(path, number, f'{line[:60]!r}; wanted c="TEXT" LINE:WORD LINE:WORD||t="TYPE"')
        row, first, last_row, last = (int(match[group]) for group in (2, 3, 4, 5))
        if row != last_row or not 1 <= row <= len(lines) or not first <= last < len(lines[row - 1]):
            split_files.reject_line(path, number, f"{match[1]!r} is at words that {name}.txt does not have")
        found = " ".join(lines[row - 1][first : last + 1])
        if found.lower() != " ".join(match[1].split()).lower():
            split_files.reject_line(path, number, f"the concept is {match[1]!r}, but {name}.txt has {found!r} there")
        tags[row - 1][first : last + 1] = [f"B-{match[6]}", *[f"I-{match[6]}"] * (last - first)]
    return [
        {"id": name, "tokens": words, "ner_tags": line_tags}
        for words, line_tags in zip(lines, tags, strict=True)
        if words
    ]


CORPUS = Corpus(
    name="i2b2-2010",
    kind=NER,
    home="https://portal.dbmi.hms.harvard.edu/projects/n2c2-nlp/",
    licence="data use agreement",
    registration="n2c2 data portal of Harvard Medical School",
    files={
        "train": "concept_assertion_relation_training_data/*/txt/*.txt, concept/*.con",
        "test": "test_data/*.txt, reference_standard_for_test_data/concepts/*.con",
    },
    splits="train and test of the task; dev is a tenth of the training records, by a hash of their names",
    labels=("problem", "test", "treatment"),
    measure="entity F1 (f1), the exact score of the task",
    read=_read,
    settings={"task.max_seq_length": 128, "batch_size": 32, "epochs": 10.0, "optimizer.learning_rate": 1e-4},
    settings_source="google-research/electra configure_finetuning.py",
    traps=("The files that are distributed today have fewer records than those of the task in 2010.",),
)
