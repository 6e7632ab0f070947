"""The label that means no relation is named exactly, and label sets written as binary values are recognized."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.text_classification import label_names

CHEMPROT = ["CPR:10", "CPR:3", "false"]


def test_the_negative_label_is_found_by_its_usual_name():
    assert label_names.find_negative(CHEMPROT, "", "train.tsv") == "false"
    assert label_names.find_negative(["DDI-effect", "DDI-false"], "", "train.tsv") == "DDI-false"
    assert label_names.find_negative(["neg", "pos"], "", "train.tsv") == "neg"


def test_the_negative_label_is_compared_as_a_whole():
    assert label_names.find_negative(["0", "CPR:10"], "0", "train.tsv") == "0"
    with pytest.raises(UserError, match="no label is called '0'.*its labels are CPR:10, CPR:3, false"):
        label_names.find_negative(CHEMPROT, "0", "train.tsv")
    with pytest.raises(UserError, match="no label is called 'false'.*DDI-effect, DDI-false"):
        label_names.find_negative(["DDI-effect", "DDI-false"], "false", "train.tsv")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["CPR:3", "unrelated"], "CPR:3, unrelated; none has a usual name for no relation.*config.text.negative=LABEL"),
        (["false", "none", "x"], "each of false, none could mean no relation.*config.text.negative=LABEL"),
        ([f"class {n}" for n in range(30)], "and 10 more; none has"),
    ],
)
def test_without_a_single_negative_label_the_error_names_the_labels(labels, message):
    with pytest.raises(UserError, match=message):
        label_names.find_negative(labels, "", "train.tsv")


def test_label_sets_as_binary_values_are_recognized():
    hoc = [["0_0", "1_1", "2_0"], ["0_1", "1_0", "2_0"]]
    assert label_names.is_binary_form(hoc)
    assert label_names.binary_names(hoc) == ["0", "1", "2"]
    assert [label_names.positive_names(labels, ["0", "1", "2"]) for labels in hoc] == [["1"], ["0"]]
    assert not label_names.is_binary_form([["grade_1", "size_1"], ["grade_1"]]), "no label has both values"
    assert not label_names.is_binary_form([["0_0", "0_1", "other"]]) and not label_names.is_binary_form([[]])


@pytest.mark.parametrize("labels", [["0_0"], ["0_0", "0_1"], ["0_0", "1_1", "2_0"], ["0_0", "1_2"], []])
def test_a_record_with_missing_repeated_or_other_values_is_refused(labels):
    with pytest.raises(ValueError, match="is not one value of each of 0, 1"):
        label_names.positive_names(labels, ["0", "1"])
