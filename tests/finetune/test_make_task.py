"""A task reads text with the tokenizer of the encoder that it starts from."""

from __future__ import annotations

import dataclasses
import json

import pytest
from invented_corpus import tiny_init_encoder

from electramed_jax.config.finetune import FinetuneConfig, QaConfig, TaskConfig
from electramed_jax.finetune import make_task
from electramed_jax.finetune.task.model_spec import ModelSpec

FILES = {
    "ner": (".txt", "dose\tB-Drug\nof\tO\n"),
    "classification": (".tsv", "text\tlabel\nthe dose\tx\npatients\ty\n"),
    "qa": (
        ".json",
        '{"data": [{"paragraphs": [{"context": "the dose", "qas": '
        '[{"id": "1", "question": "dose", "answers": [{"text": "dose", "answer_start": 4}]}]}]}]}',
    ),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("keep_accents", [True, False])
def test_accents_are_kept_in_fine_tuning_and_predictions_if_the_encoder_keeps_them(tmp_path, kind, keep_accents):
    ending, content = FILES[kind]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}{ending}").write_text(content.replace("dose", f"dose {split}"))
    encoder = dataclasses.replace(tiny_init_encoder(), keep_accents=keep_accents)
    config = FinetuneConfig(
        task=TaskConfig(kind=kind, data=str(tmp_path), max_seq_length=32), qa=QaConfig(max_query_length=8, doc_stride=8)
    )
    task, _, spec = make_task.make_task(config, encoder)
    assert task.tokenizer.keep_accents is keep_accents
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json())), "task.json").keep_accents is keep_accents
