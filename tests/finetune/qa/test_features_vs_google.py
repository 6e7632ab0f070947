"""Texts, tagged words and questions become the rows that google-research/electra's finetune/ makes of them.

Its numbers: shared data, oracle/ft/featurize.json. Where it departs from BERT (segment 1 for all of a tagged sentence,
BIOES instead of IOB2) it is not followed; ids and places are the same.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import word_windows
from electramed_jax.finetune.qa import squad, windows
from electramed_jax.finetune.qa.windows import WindowConfig
from electramed_jax.finetune.text_classification import inputs
from electramed_jax.finetune.text_classification.tables import Record


@pytest.fixture(scope="module")
def featurized(shared_data) -> dict:
    return json.loads((shared_data / "oracle" / "ft" / "featurize.json").read_text())


@pytest.fixture(scope="module")
def tokenizer(shared_data) -> Tokenizer:
    return Tokenizer(str(shared_data / "oracle" / "data" / "vocab.txt"))


def ids_of(features: dict) -> list[int]:
    return features["input_ids"][: sum(features["input_mask"])]


def test_texts_and_pairs_are_cut_in_the_same_places(featurized, tokenizer):
    cases = featurized["classification"]
    records = [Record(case["text_a"], case["text_b"] or "", None, 1) for case in cases]
    made = inputs.make_inputs(records, [], tokenizer, featurized["max_seq_length"])
    assert len(cases) == 10
    assert [ids.tolist() for ids in made.input_ids] == [ids_of(case["features"]) for case in cases]
    assert sum(made.truncated) == 5


def test_words_are_predicted_at_the_same_pieces(featurized, tokenizer):
    """Google's code drops words that do not fit; this package puts them into the next window. "[CLS]" in a text is a word."""
    compared = 0
    for case in featurized["tagging"]:
        sentence = [ids.tolist() for ids in tokenizer.encode_batch(case["words"])]
        made = word_windows.make_examples([sentence], featurized["max_seq_length"], tokenizer.special)
        if len(made) == 1 and "[CLS]" not in case["words"]:
            count = int(sum(case["features"]["chunk_labels_mask"]))
            assert made[0].input_ids.tolist() == ids_of(case["features"])
            assert made[0].positions.tolist() == case["features"]["chunk_labeled_positions"][:count]
            compared += 1
    assert compared == 2


def test_questions_are_cut_into_the_same_windows_with_the_answers_in_the_same_places(featurized, tokenizer):
    compared = 0
    for case in featurized["qa"]:
        options = case["options"]
        if options["doc_stride"] > 25:  # of 32: pieces between windows would be lost, and ours refuses to
            continue
        windowing = WindowConfig(featurized["max_seq_length"], options["doc_stride"], options["max_query_length"])
        value = {"data": [{"paragraphs": [case["paragraph"]]}]}
        (question,) = squad.parse_squad("oracle", value).questions
        made, _ = windows.make_windows([question], tokenizer, windowing)
        assert len(made) == len(case["features"])
        for window, features in zip(made, case["features"], strict=True):
            assert window.input_ids.tolist() == ids_of(features)
            context = [most for _, most in features["squad_token_is_max_context"]]
            assert window.max_context.tolist() == context
            assert [window.start, window.end] == [features["squad_start_positions"], features["squad_end_positions"]]
            assert np.flatnonzero(features["segment_ids"])[0] == window.first
            compared += 1
    assert compared > 20
