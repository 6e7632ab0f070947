"""Writes the training, dev and test files of a corpus, and finds them again for fine-tuning.

FOLDER/train.jsonl, dev.jsonl, test.jsonl   rows that the task reads; .json for questions
FOLDER/corpus.json                          name, home, licence, counts, and the hashes of the original files
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.registry import find_corpus
from electramed_jax.finetune.corpora.spec import corpus as corpus_lib
from electramed_jax.finetune.corpora.spec.corpus import QA, Corpus, Row
from electramed_jax.finetune.task import split_files

RECORD_FILE = "corpus.json"
DEFAULT_FOLDER = "corpora"
_FLAG = "--config.task.corpus="
_DATA_FLAG = "--config.task.data="


def prepare(name: str, source: str, output: str = "", *, any_counts: bool = False) -> dict[str, Any]:
    """Reads the original files of a corpus, checks their numbers, and writes the files of its splits.

    Args:
      name: of the corpus.
      source: folder with the original files, at any depth.
      output: folder to write; "": corpora/NAME.
      any_counts: accept other numbers than the expected ones.

    Returns:
      The content of corpus.json, and "output".

    Raises:
      UserError: no such corpus or folder, a file is missing or damaged, or a number is not the expected one.
    """
    corpus = find_corpus(name)
    if not files.is_dir(source):
        raise UserError(f"{source}: no such folder; unpack the files of {corpus.home} there")
    output = output or files.join(DEFAULT_FOLDER, name)
    splits = corpus.read(source)
    counted = {split: corpus_lib.count(rows) for split, rows in splits.items()}
    if empty := [split for split, rows in splits.items() if not rows]:
        raise UserError(f"{source}: {empty[0]} of {name} is empty; download the original files again")
    corpus_lib.check_labels(corpus, splits)
    if not any_counts:
        corpus_lib.check_counts(corpus, counted)
    files.make_dirs(output)
    for split, rows in splits.items():
        files.write_text(files.join(output, _file_name(corpus, split)), _to_text(corpus, rows))
    record = {
        "corpus": name,
        "kind": corpus.kind,
        "home": corpus.home,
        "licence": corpus.licence,
        "counts": counted,
        "expected_counts": bool(corpus.counts) and not any_counts,
        "source": split_files.describe_files({"source": source})["source"],
    }
    files.write_json(files.join(output, RECORD_FILE), record)
    return record | {"output": output}


def add_settings(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of `electramed finetune` with the settings of --config.task.corpus before the user's.

    Raises:
      UserError: no such corpus, it is not prepared, or the folder holds another one.
    """
    names = [argument.removeprefix(_FLAG) for argument in arguments if argument.startswith(_FLAG)]
    if not names or not names[-1]:
        return list(arguments)
    corpus = find_corpus(names[-1])
    chosen = [argument.removeprefix(_DATA_FLAG) for argument in arguments if argument.startswith(_DATA_FLAG)]
    folder = chosen[-1] if chosen else files.join(DEFAULT_FOLDER, corpus.name)
    path = files.join(folder, RECORD_FILE)
    if not files.exists(path):
        raise UserError(
            f"{folder}: no {RECORD_FILE}; run electramed corpora prepare {corpus.name} --source FOLDER "
            f"--output {folder}"
        )
    found = files.read_json(path).get("corpus")
    if found != corpus.name:
        raise UserError(
            f"{folder}: holds the corpus {found}, not {corpus.name}; choose its folder with {_DATA_FLAG}FOLDER"
        )
    settings = {"task.kind": corpus.kind, "task.data": folder, **corpus.settings}
    flags = [f"--config.{name}={value}" for name, value in config_io.flatten(settings).items()]
    config_files = [argument for argument in arguments if argument.startswith("--config=")]
    return [*config_files, *flags, *(argument for argument in arguments if argument not in config_files)]


def _file_name(corpus: Corpus, split: str) -> str:
    return f"{split}.json" if corpus.kind == QA else f"{split}.jsonl"


def _to_text(corpus: Corpus, rows: Sequence[Row]) -> str:
    if corpus.kind == QA:
        key = "questions" if "body" in rows[0] else "data"
        return json.dumps({key: list(rows)}, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
