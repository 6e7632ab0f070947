"""Questions of `datasets` and of LinkBERT are read as those of SQuAD's files."""

from __future__ import annotations

import json

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.qa import splits
from electramed_jax.finetune.qa.squad import Answer

ROWS = [
    {
        "id": "1",
        "question": "Which gene?",
        "context": "The gene IL-2.",
        "answers": {"text": ["IL-2"], "answer_start": [9]},
    },
    {"id": "2", "question": "Which drug?", "context": "The gene IL-2.", "answers": {"text": [], "answer_start": []}},
]


def read(tmp_path, value: object) -> list:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(value))
    return splits.read_split([str(path)], for_training=True).questions


@pytest.mark.parametrize("value", [ROWS, {"data": ROWS, "version": "2"}])
def test_answers_and_questions_without_one_are_kept(tmp_path, value):
    answered, impossible = read(tmp_path, value)
    assert (answered.id, answered.answers, answered.impossible) == ("1", (Answer("IL-2", 9),), False)
    assert (impossible.id, impossible.answers, impossible.impossible) == ("2", (), True)


def test_rows_without_any_answer_are_not_impossible_but_unlabelled(tmp_path):
    (question,) = read(tmp_path, ROWS[1:])
    assert not question.impossible and not question.is_labelled


def test_an_answer_that_is_not_at_its_place_is_an_error(tmp_path):
    rows = [ROWS[0] | {"answers": {"text": ["IL-2"], "answer_start": [8]}}]
    with pytest.raises(UserError, match="question 1: answer 'IL-2': answer_start is 8"):
        read(tmp_path, rows)
