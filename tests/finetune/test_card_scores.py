"""Scores on a model's card: with the data of each, for readers and for the Hub's own parser."""

from __future__ import annotations

import huggingface_hub
import pytest

from electramed_jax.finetune import card_scores, published
from electramed_jax.hf import card

HASH = "30c7944720f5" + "0" * 52
SCORE = {"model": "ELECTRAMed-base", "metric": "f1", "value": 87.54, "source": "Miolo 2021"}
RESULTS = {
    "task": "ner",
    "variant": "NCBI-disease, its original split: one type",
    "published": [SCORE, SCORE | {"metric": "merged_f1", "value": 99.0}],
    "primary": "f1",
    "seeds": [0, 1],
    "scores": {split: {"f1": {"mean": 86.25, "standard_deviation": 0.25}} for split in ("dev", "test")},
    "runs": [{"seed": seed, "dev": {"f1": 80.0}, "test": {"f1": 86.0 + seed / 2}} for seed in (0, 1)],
    "data": {"sizes": {"dev": {"sentences": 7}, "test": {"sentences": 1940}}, "files": {"test": {"sha256": HASH}}},
}
OWN = RESULTS | {
    "task": "qa",
    "variant": published.UNKNOWN,
    "published": [],
    "primary": "mrr",
    "seeds": [0],
    "scores": {"dev": {"mrr": {"mean": 41.0, "standard_deviation": 0.0}}},
}


def test_a_score_is_listed_with_its_data_variant_its_seeds_and_comparable_published_scores():
    text = card_scores.scores_table([RESULTS, OWN])
    variant = "NCBI-disease, its original split: one type (test SHA-256 30c7944720f5)"
    shown = "test: 1,940 sentences | f1 | 86.25 ± 0.25 | 2 | 87.54, ELECTRAMed-base (Miolo 2021) |"
    assert f"| ner | {variant} | {shown}" in text and "99.00" not in text
    assert "| qa | other files | dev: 7 sentences | mrr | 41.00 | 1 |  |" in text
    assert card_scores.scores_table([]) == ""
    assert "What limits" not in text
    limited = card_scores.scores_table([RESULTS | {"warnings": ["test and dev are the same file"]}, OWN])
    assert limited.endswith(f"\n\nWhat limits these scores:\n\n- ner, {variant}: test and dev are the same file")


@pytest.mark.parametrize(("seed", "value"), [(None, 86.25), (0, 86.0), (1, 86.5)])
def test_the_hub_reads_the_same_of_all_seeds_or_of_one(seed, value):
    facts = card.CardData("x: y", {}, {}, {}, metadata=card_scores.hub_metadata("x: y", [RESULTS], seed))
    read = huggingface_hub.ModelCard(card.render_card("token", facts))
    (result,) = read.data.eval_results
    assert (result.task_type, result.dataset_split, result.metric_type) == ("token-classification", "test", "f1")
    assert (result.metric_value, result.dataset_type) == (value, "ncbi-disease")
    assert result.dataset_name.startswith("NCBI-disease, its original split: one type")
    assert "model-index" not in card.render_card(
        "token", card.CardData("x", {}, {}, {}, metadata=card_scores.hub_metadata("x", []))
    )
