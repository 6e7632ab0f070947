"""Published scores name a corpus of the registry, and are not given twice."""

from __future__ import annotations

import collections
import statistics

import pytest

from electramed_jax.finetune.corpora.registry import CORPORA
from electramed_jax.finetune.corpora.spec import published_scores
from electramed_jax.finetune.corpora.spec.published_scores import PUBLISHED

# The macro average over BLURB's six kinds of tasks that table 6 of Gu et al. and table 7 of Yasunaga et al. print.
BLURB_AVERAGES = {"BERT-base uncased": 76.11, "RoBERTa-base": 76.46, "BioBERT v1.1": 80.34, "SciBERT uncased": 78.86,
                  "SciBERT cased": 78.14, "ClinicalBERT": 77.29, "BlueBERT": 76.27, "PubMedBERT": 81.16,
                  "BioLinkBERT-base": 83.39, "BioLinkBERT-large": 84.30}  # fmt: skip
TASKS = (
    ("bc5-chemical", "bc5-disease", "ncbi-disease", "bc2gm", "jnlpba-merged"),
    ("ebm-pico",),
    ("chemprot", "ddi", "gad"),
    ("biosses",),
    ("hoc",),
    ("pubmedqa", "bioasq-yesno"),
)


def test_every_score_is_of_a_known_corpus_and_has_its_variant_and_source():
    for one in PUBLISHED:
        assert one.corpus in CORPORA and one.variant and one.source and 0 < one.value < 100
    counts = collections.Counter(one[:2] + one[3:5] for one in PUBLISHED)
    assert max(counts.values()) == 1


def test_the_scores_give_the_macro_averages_that_their_paper_prints():
    for model, printed in BLURB_AVERAGES.items():
        scores = {one.corpus: one.value for one in PUBLISHED if one.model == model and one.variant == "BLURB's files"}
        of_tasks = [statistics.mean(scores[name] for name in names) for names in TASKS]
        assert statistics.mean(of_tasks) == pytest.approx(printed, abs=0.006), model


def test_scores_are_listed_from_the_highest():
    values = [one.value for one in published_scores.scores_of("bc5-chemical")]
    assert values == sorted(values, reverse=True) and len(values) > 10
    assert published_scores.scores_of("i2b2-2010") == []
