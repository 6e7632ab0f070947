"""The BLURB score is the published mean over tasks, and unlike measures are never in one column."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.analysis import blurb
from electramed_jax.finetune.corpora import registry
from electramed_jax.finetune.corpora.spec import published_scores


# Gu et al. 2021, arXiv 2007.15779, table 6: the BLURB score of each model.
@pytest.mark.parametrize(
    ("model", "score"),
    [
        ("BERT-base uncased", 76.11), ("RoBERTa-base", 76.46), ("BioBERT v1.1", 80.34), ("SciBERT uncased", 78.86),
        ("SciBERT cased", 78.14), ("ClinicalBERT", 77.29), ("BlueBERT", 76.27), ("PubMedBERT", 81.16),
    ],
)  # fmt: skip
def test_the_average_of_published_scores_is_the_published_one(model, score):
    of_model = {one.corpus: one.value for one in published_scores.PUBLISHED if one.model == model}
    assert round(blurb.macro_average(of_model), 2) == score


def results_of(measure: str, value: float) -> dict:
    scores = {"test": {measure: {"mean": value, "standard_deviation": 1.0}}}
    return {"scores": scores, "seeds": [0, 1], "variant": "other files"}


def test_a_table_names_what_is_missing_and_shows_published_scores_of_the_same_measure():
    table = blurb.gather_table("runs/small", {"chemprot": results_of("f1", 70.0), "gad": results_of("accuracy", 90.0)})
    assert table["score"] is None and "gad" in table["missing"] and "chemprot" not in table["missing"]
    text = blurb.to_markdown(table)
    row = next(line for line in text.split("\n") if line.startswith("| chemprot"))
    assert "| f1 | 70.00 ± 1.00 | 2 | 71.86 | 75.24 | 76.14 | 77.24 | 77.57 |" in row
    assert "90.00" not in text, "the accuracy of GAD is not BLURB's measure"
    assert "Missing: bc5-chemical," in text
    whole = blurb.gather_table("m", {one.name: results_of(one.measure, 80.0) for one in blurb.DATA_SETS})
    assert whole["score"] == 80.0 and not whole["missing"]
    assert "| BLURB score | mean of six tasks |  | 80.00 |  | 76.11 |" in blurb.to_markdown(whole)


def test_every_data_set_of_blurb_is_a_corpus():
    assert len(blurb.DATA_SETS) == 13 and {one.name for one in blurb.DATA_SETS} <= registry.CORPORA.keys()


def test_a_folder_without_data_sets_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no prepared data set of BLURB in it .* run electramed corpora prepare NAME"):
        blurb.find_data_sets(str(tmp_path))
