"""SQuAD 1.1 and 2.0, and BioASQ's factoid questions: JSON files that are read as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electramed_jax.common.storage import files
from electramed_jax.finetune.corpora.spec.corpus import GENUINE, QA, Corpus, Splits
from electramed_jax.finetune.corpora.spec.source import find_file
from electramed_jax.finetune.qa import splits as qa_splits
from electramed_jax.finetune.task import split_files

_BERT = "google-research/bert run_squad.py, kept by BioBERT and ELECTRAMed"
_SETTINGS: Mapping[str, Any] = {
    "task.max_seq_length": 384, "qa.doc_stride": 128, "qa.max_query_length": 64, "batch_size": 32,
}  # fmt: skip


def _read_squad(folder: str, version: str) -> Splits:
    """Returns the paragraphs of train and dev; the official test set is not public."""
    return {split: _entries(find_file(folder, f"{split}-v{version}.json")) for split in ("train", "dev")}


def _read_factoids(folder: str) -> Splits:
    train = _entries(find_file(folder, "BioASQ-train-factoid-*.json"))
    golden = [path for path in split_files.list_files(folder) if path.endswith("_golden.json")]
    if not golden:
        find_file(folder, "*_golden.json")
    return {"train": train, "test": [question for path in golden for question in _factoids(path)]}


def _entries(path: str) -> list[dict[str, Any]]:
    qa_splits.read_split([path], for_training=True, labelled=True)  # every answer is at its offset
    return list(files.read_json(path)["data"])


def _factoids(path: str) -> list[dict[str, Any]]:
    return [question for question in files.read_json(path)["questions"] if question.get("type") == "factoid"]


def _squad(version: str, what: str) -> Corpus:
    return Corpus(
        name=f"squad-{version.removesuffix('.0')}",
        kind=QA,
        home="https://rajpurkar.github.io/SQuAD-explorer/",
        licence="CC BY-SA 4.0",
        files={"train": f"train-v{version}.json", "dev": f"dev-v{version}.json"},
        splits="the two public files; papers report dev",
        labels=(),
        measure=f"exact match and F1 of the answer (exact_match, f1); {what}",
        read=lambda folder: _read_squad(folder, version),
        settings={**_SETTINGS, "epochs": 2.0, "optimizer.learning_rate": 1e-4, "qa.measures": "squad"},
        settings_source=f"{_BERT}; rate and epochs: google-research/electra configure_finetuning.py",
    )


SQUAD_1, SQUAD_2 = _squad("1.1", "every question has an answer"), _squad("2.0", "some questions have no answer")
BIOASQ_FACTOID = Corpus(
    name="bioasq-factoid",
    kind=QA,
    home="http://participants-area.bioasq.org/",
    licence="for registered participants (NLM licence)",
    registration="BioASQ participants' area",
    files={"train": "BioASQ-train-factoid-7b*.json (SQuAD's form, of BioBERT)", "test": "7B1_golden.json ..."},
    splits="golden batches are test, with their snippets; dev is held out of train",
    labels=(),
    measure="strict and lenient accuracy, and MRR (strict_accuracy, lenient_accuracy, mrr)",
    read=_read_factoids,
    settings={
        **_SETTINGS,
        "epochs": 3.0,
        "optimizer.learning_rate": 5e-5,
        "qa.measures": "bioasq",
        "task.dev_fraction": 0.1,
    },
    settings_source=_BERT,
    traps=(
        "Papers train on SQuAD first: --config.qa.pretrain_stage.train=train-v1.1.json.",
        "Test passages are snippets here and whole abstracts in ELECTRAMed's files.",
    ),
    checked=GENUINE,
)
CORPORA = (SQUAD_1, SQUAD_2, BIOASQ_FACTOID)
