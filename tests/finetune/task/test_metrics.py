"""Our scores are those of the tools that the published ones were made with."""

from __future__ import annotations

import random

import numpy as np
import pytest
import seqeval.metrics
import seqeval.scheme
import sklearn.metrics
from invented_tags import random_tags
from scipy import stats

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.ner import entity_f1, tags
from electramed_jax.finetune.task import metrics

SCORES = ("precision", "recall", "f1")


def seqevals(gold, predicted):
    measures = (seqeval.metrics.precision_score, seqeval.metrics.recall_score, seqeval.metrics.f1_score)
    return [100 * measure(gold, predicted, zero_division=0) for measure in measures]


def one_type(sentences):
    return [[tag if tag == "O" else tag.split("-")[0] + "-E" for tag in sentence] for sentence in sentences]


@pytest.mark.slow
@pytest.mark.parametrize("prefixes", ["BI", "BIES"])
def test_entity_scores_are_those_of_seqeval_typed_and_merged(prefixes):
    draw = random.Random(0)
    for _ in range(400):
        gold = [random_tags(draw, prefixes, "XYZ") for _ in range(draw.randrange(1, 6))]
        predicted = [[tag if draw.random() < 0.7 else draw.choice(sentence) for tag in sentence] for sentence in gold]
        scores = entity_f1.entity_scores(gold, predicted)
        assert [scores[name] for name in SCORES] == pytest.approx(seqevals(gold, predicted))
        merged = seqevals(one_type(gold), one_type(predicted))
        assert [scores[f"merged_{name}"] for name in SCORES] == pytest.approx(merged)


def test_strict_scores_are_those_of_seqeval_in_strict_mode():
    draw = random.Random(3)
    for _ in range(60):
        gold = [tags.encode(tags.decode(one), len(one)) for one in (random_tags(draw, "BI", "XYZ") for _ in range(4))]
        predicted = [[tag if draw.random() < 0.7 else draw.choice(["I-X", "B-Y", "O"]) for tag in one] for one in gold]
        options = {"mode": "strict", "scheme": seqeval.scheme.IOB2, "zero_division": 0}
        measures = (seqeval.metrics.precision_score, seqeval.metrics.recall_score, seqeval.metrics.f1_score)
        theirs = [100 * measure(gold, predicted, **options) for measure in measures]
        scores = entity_f1.entity_scores(gold, predicted)
        assert [scores[f"strict_{name}"] for name in SCORES] == pytest.approx(theirs)


def test_f1_of_each_type_is_seqevals():
    draw = random.Random(1)
    gold = [random_tags(draw, "BI", "XYZ") for _ in range(50)]
    predicted = [[tag if draw.random() < 0.8 else "O" for tag in sentence] for sentence in gold]
    report = seqeval.metrics.classification_report(gold, predicted, output_dict=True)
    scores = entity_f1.entity_scores(gold, predicted)
    for kind in "XYZ":
        assert scores[f"f1/{kind}"] == pytest.approx(100 * report[kind]["f1-score"])


def test_relations_are_scored_over_the_positive_classes():
    labels = ["CPR:3", "CPR:4", "false"]
    draw = np.random.default_rng(0)
    gold, predicted = draw.integers(0, 3, (2, 500))
    scores = metrics.classification_scores(gold, predicted, labels, counted=["CPR:3", "CPR:4"])
    for average, name in (("micro", "f1"), ("macro", "macro_f1")):
        theirs = sklearn.metrics.f1_score(gold, predicted, labels=[0, 1], average=average)
        assert scores[name] == pytest.approx(100 * theirs)
    assert scores["accuracy"] == pytest.approx(100 * np.mean(gold == predicted))
    assert "f1/false" not in scores


def test_classification_has_the_macro_f1_and_the_class_scores_of_scikit_learn():
    labels = ["a", "b", "c", "never"]
    draw = np.random.default_rng(2)
    gold, predicted = draw.integers(0, 3, (2, 200))
    scores = metrics.classification_scores(gold, predicted, labels)
    report = sklearn.metrics.classification_report(gold, predicted, target_names=labels[:3], output_dict=True)
    assert scores["macro_f1"] == pytest.approx(100 * report["macro avg"]["f1-score"])
    for label in labels[:3]:
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert scores[f"{name}/{label}"] == pytest.approx(100 * report[label][theirs])
    assert scores["accuracy"] == pytest.approx(100 * report["accuracy"])
    assert "f1" not in scores, "the micro average of all classes is the accuracy"
    assert "f1/never" not in scores, "a class without an example has no score"


def test_a_classifier_that_predicts_one_class_has_a_high_accuracy_and_a_low_macro_f1():
    scores = metrics.classification_scores([0] * 36 + [1] * 4, [0] * 40, ["none", "some"])
    assert scores["accuracy"] == 90 and scores["recall/some"] == 0
    assert scores["macro_f1"] == pytest.approx(
        100 * sklearn.metrics.f1_score([0] * 36 + [1] * 4, [0] * 40, average="macro")
    )


def test_class_scores_have_the_same_names_whatever_is_predicted():
    """Scores are averaged over seeds."""
    gold, tags = [["B-X", "O"], ["B-Y", "O"]], [["B-X", "B-Z"], ["B-Y", "O"]]
    assert entity_f1.entity_scores(gold, gold).keys() == entity_f1.entity_scores(gold, tags).keys()
    few, many = (metrics.classification_scores([0, 1, 0], p, ["a", "b", "c"]) for p in ([0, 0, 0], [0, 1, 2]))
    assert few.keys() == many.keys()


def test_only_scores_that_a_task_has_can_choose_the_checkpoint():
    assert metrics.choose_primary("", "f1", ["f1", "recall"]) == "f1"
    assert metrics.choose_primary("recall", "f1", ["f1", "recall"]) == "recall"
    with pytest.raises(
        UserError, match="config.task.primary='loss': not a score of this task; wanted one of f1, recall"
    ):
        metrics.choose_primary("loss", "f1", ["f1", "recall"])


def test_label_sets_and_numbers_are_scored_as_scikit_learn_and_scipy_do():
    draw = np.random.default_rng(1)
    gold, predicted = draw.random((2, 80, 4)) < 0.3
    scores = metrics.multilabel_scores(gold, predicted, list("abcd"))
    assert scores["f1"] == pytest.approx(100 * sklearn.metrics.f1_score(gold, predicted, average="micro"))
    assert scores["macro_f1"] == pytest.approx(100 * sklearn.metrics.f1_score(gold, predicted, average="macro"))
    assert scores["accuracy"] == pytest.approx(100 * sklearn.metrics.accuracy_score(gold, predicted))
    labelled = gold.any(axis=1)
    precision, recall, _, _ = sklearn.metrics.precision_recall_fscore_support(
        gold[labelled], predicted[labelled], average="samples", zero_division=0
    )
    assert (scores["example_precision"], scores["example_recall"]) == pytest.approx((100 * precision, 100 * recall))
    assert scores["example_f1"] == pytest.approx(200 * precision * recall / (precision + recall))
    wanted = draw.integers(0, 5, 60) / 2  # with ties
    got = wanted + draw.normal(size=60)
    scores = metrics.regression_scores(wanted, got)
    assert scores["pearson"] == pytest.approx(100 * stats.pearsonr(wanted, got)[0])
    assert scores["spearman"] == pytest.approx(100 * stats.spearmanr(wanted, got)[0])


def test_a_model_that_finds_nothing_scores_nought():
    assert entity_f1.entity_scores([["B-X", "O"]], [["O", "O"]])["f1"] == 0
    assert entity_f1.entity_scores([["O"]], [["O"]])["f1"] == 0
    assert metrics.regression_scores([1.0, 2.0], [3.0, 3.0])["pearson"] == 0


def test_several_runs_have_a_mean_and_a_standard_deviation():
    assert metrics.mean_and_std([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, np.std([1, 2, 4], ddof=1)))
    assert metrics.mean_and_std([5.0]) == (5.0, 0.0)
