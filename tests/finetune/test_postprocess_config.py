"""The postprocessing settings of training are kept from run to export and back."""

from __future__ import annotations

import dataclasses
import json

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig, QaConfig, TextConfig
from electramed_jax.finetune import postprocess_config
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.task.task import SIGMOID, Head
from electramed_jax.finetune.text_classification.tables import Columns
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

CONFIG = FinetuneConfig(
    text=TextConfig(threshold=0.3, text_column="abstract", second_text_column="title"),
    qa=QaConfig(doc_stride=40, max_query_length=20, max_answer_length=12, null_threshold=-1.5),
)


def of_run(impossible: int = 0) -> PostprocessConfig:
    config = json.loads(json.dumps(dataclasses.asdict(CONFIG)))  # as config.json has it
    return postprocess_config.from_run(
        "qa", 96, config, {"sizes": {"train": {"impossible": impossible}, "dev": {"examples": 3}}}
    )


def test_the_settings_are_those_of_the_run():
    assert of_run() == PostprocessConfig("qa", 96, 0.3, Columns("abstract", "title"), 40, 20, 12, None)


def test_a_question_may_stay_unanswered_only_if_the_model_was_trained_on_impossible_ones():
    assert of_run(impossible=2).null_threshold == -1.5


def test_an_export_keeps_the_settings():
    held = json.loads(json.dumps(postprocess_config.to_json(of_run(2))))
    assert postprocess_config.from_json(held, Head(SPAN, ("start", "end")), 512, "x") == of_run(2)


def test_a_folder_of_another_program_gets_the_defaults():
    assert postprocess_config.from_json({}, Head(SEQUENCE, ("a", "b"), SIGMOID), 512, "x").kind == "multilabel"
    assert postprocess_config.from_json({}, Head(TOKEN, ("O", "B-X")), 128, "x") == PostprocessConfig("ner", 128)


@pytest.mark.parametrize("values", [{"kind": "qa"}, {"colour": 1}, [1], {"columns": 3}])
def test_unknown_values_are_an_error(values):
    with pytest.raises(UserError, match="x: .*export the model again"):
        postprocess_config.from_json(values, Head(TOKEN, ("O", "B-X")), 128, "x")
