"""A comparison equals scipy's tests, and what trying all swaps gives."""

from __future__ import annotations

import itertools
import json
import pathlib

import numpy as np
import pytest
import sklearn.metrics
from scipy import stats

from electramed_jax import cli
from electramed_jax.common.errors import UserError
from electramed_jax.finetune.analysis import compare
from electramed_jax.finetune.analysis.score_sums import ScoreSums, score_sums
from electramed_jax.finetune.ner import entity_f1, tags
from electramed_jax.finetune.task import metrics


def mean_score(values: np.ndarray) -> ScoreSums:
    return ScoreSums(np.stack([values, np.ones_like(values)], axis=1), lambda sums: sums[..., 0] / sums[..., 1])


def test_the_p_value_of_few_examples_is_scipys_exact_one():
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    found = compare.compare_scores([mean_score(a)], [mean_score(b + 0.5)])
    wanted = stats.permutation_test(
        (a, b + 0.5), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", vectorized=True
    )
    assert found.p_value == pytest.approx(wanted.pvalue)
    assert found.difference == pytest.approx(np.mean(b + 0.5 - a))


def test_interval_and_p_value_of_many_examples_are_near_scipys():
    draw = np.random.default_rng(1)
    a = draw.normal(size=200)
    b = a + draw.normal(0.15, 1.0, 200)
    found = compare.compare_scores([mean_score(a)], [mean_score(b)], resamples=20_000)
    interval = stats.bootstrap((b - a,), np.mean, method="percentile", n_resamples=20_000, rng=draw).confidence_interval
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.02)
    assert found.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)


def f1_of(swapped: tuple[int, ...], mine: list[dict], others: list[dict]) -> float:
    chosen = [other if swap else one for one, other, swap in zip(mine, others, swapped, strict=True)]
    predicted, gold = ([label for one in chosen for label in one[side]] for side in ("predicted", "gold"))
    return 100 * sklearn.metrics.f1_score(gold, predicted, labels=["A", "B"], average="micro", zero_division=0)


def random_records(seed: int, count: int) -> list[dict]:
    """Gold labels depend on the number of the example alone."""
    gold, draw = np.random.default_rng(9), np.random.default_rng(seed)
    records = []
    for number in range(count):
        label = gold.choice(["A", "B", "none"])
        predicted = label if draw.random() < 0.6 else draw.choice(["A", "B", "none"])
        records.append({"line": number, "gold": [str(label)], "predicted": [str(predicted)]})
    return records


def test_the_p_value_of_a_micro_f1_is_that_of_all_swaps():
    one, other = random_records(1, 8), random_records(2, 8)
    labels, counted = ["A", "B", "none"], ["A", "B"]
    sums = [[score_sums("relations", "f1", records, labels, counted)] for records in (one, other)]
    found = compare.compare_scores(*sums)
    every = list(itertools.product((0, 1), repeat=8))
    differences = [f1_of(swaps, other, one) - f1_of(swaps, one, other) for swaps in every]
    assert found.difference == pytest.approx(differences[0])
    wanted = np.mean([abs(value) >= abs(differences[0]) - 1e-9 for value in differences])
    assert found.p_value == pytest.approx(wanted)


def test_seeds_are_averaged_and_equal_systems_do_not_differ():
    sums = [score_sums("relations", "f1", random_records(seed, 60), [], ["A", "B"]) for seed in range(4)]
    found = compare.compare_scores(sums[:2], sums[2:], resamples=500)
    of_seed = [float(one.finish(one.of_example.sum(axis=0))) for one in sums]
    assert (found.first, found.second) == pytest.approx((np.mean(of_seed[:2]), np.mean(of_seed[2:])))
    same = compare.compare_scores(sums[:2], sums[:2], resamples=500)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


@pytest.mark.parametrize("score", ["precision", "recall", "f1", "macro_f1", "accuracy", "f1/A"])
def test_scores_from_sums_are_those_of_the_run(score):
    labels, counted = ["A", "B", "none"], ["A", "B"]
    records = random_records(3, 50)
    sums = score_sums("relations", score, records, labels, counted)
    gold, predicted = ([labels.index(record[side][0]) for record in records] for side in ("gold", "predicted"))
    wanted = metrics.classification_scores(gold, predicted, labels, counted)[score]
    assert float(sums.finish(sums.of_example.sum(axis=0))) == pytest.approx(wanted)


def test_scores_of_entities_sets_and_numbers_from_sums_are_those_of_the_run():
    gold = [["B-X", "I-X", "O", "B-Y"], ["B-X", "O"], ["O"]]
    predicted = [["B-X", "I-X", "O", "B-X"], ["B-X", "B-Y"], ["O"]]
    records = [
        {"gold": [list(e) for e in tags.decode(a)], "predicted": [list(e) for e in tags.decode(b)]}
        for a, b in zip(gold, predicted, strict=True)
    ]
    for score in ("precision", "recall", "f1", "f1/Y"):
        sums = score_sums("ner", score, records, [], [])
        wanted = entity_f1.entity_scores(gold, predicted)[score]
        assert float(sums.finish(sums.of_example.sum(axis=0))) == pytest.approx(wanted)
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 30))
    records = [{"gold": [a], "predicted": [b]} for a, b in zip(x, y, strict=True)]
    sums = score_sums("similarity", "pearson", records, [], [])
    assert float(sums.finish(sums.of_example.sum(axis=0))) == pytest.approx(100 * stats.pearsonr(x, y)[0])
    sets = draw.random((2, 20, 3)) < 0.4
    sides = [[[str(n) for n in np.flatnonzero(row)] for row in side] for side in sets]
    records = [{"gold": a, "predicted": b} for a, b in zip(*sides, strict=True)]
    for score in ("f1", "macro_f1", "accuracy"):
        sums = score_sums("multilabel", score, records, ["0", "1", "2"], ["0", "1", "2"])
        wanted = metrics.multilabel_scores(*sets, ["0", "1", "2"])[score]
        assert float(sums.finish(sums.of_example.sum(axis=0))) == pytest.approx(wanted)


def write_run(folder: pathlib.Path, records: list[dict], task: str = "relations", seed: int = 0) -> pathlib.Path:
    """Writes the files of a finished run that a comparison reads."""
    own = folder / f"seed-{seed}"
    own.mkdir(parents=True)
    history = [{"step": 1, "epoch": 1.0, "f1": 50.0}]
    scores = {"seed": seed, "best_step": 1, "best_epoch": 1.0, "dev": {"f1": 50.0}, "history": history}
    results = {
        "task": task, "variant": "", "published": [], "data": {"files": {}, "sizes": {"dev": {}}, "negative": "none"},
        "encoder": "", "primary": "f1", "seeds": [seed], "seeds_wanted": 1, "runs": [scores], "config": {}, "code": "",
        "scores": {"dev": {"f1": {"mean": 50.0, "standard_deviation": 0.0}}},
    }  # fmt: skip
    (folder / "task.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps(results))
    (own / "records-test.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_the_command_compares_two_runs(tmp_path, capsys):
    one, other = (write_run(tmp_path / str(seed), random_records(seed, 40)) for seed in (1, 2))
    assert cli.main(["compare", str(one), str(other), "--resamples=300", "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["difference"] == pytest.approx(found["second"] - found["first"]) and found["examples"] == 40
    assert f"difference {found['difference']:+.2f}, 95 % interval" in captured.err
    counts = [f1_of((0,) * 40, records, records) for records in (random_records(1, 40), random_records(2, 40))]
    assert (found["first"], found["second"]) == pytest.approx(counts), "the negative label is not counted"


def test_runs_on_other_examples_or_without_records_are_refused(tmp_path):
    one = write_run(tmp_path / "one", random_records(1, 9))
    changed = random_records(2, 9)
    changed[4]["gold"] = ["C"]
    with pytest.raises(UserError, match="differ in the examples or their labels, first at {'line': 4"):
        compare.compare_runs(str(one), str(write_run(tmp_path / "two", changed)), "test")
    with pytest.raises(UserError, match="has 9 examples and .* 8; compare runs on the same file"):
        compare.compare_runs(str(one), str(write_run(tmp_path / "three", random_records(2, 8))), "test")
    with pytest.raises(UserError, match="records-dev.jsonl: no such file; a run of an earlier version"):
        compare.compare_runs(str(one), str(one), "dev")
    with pytest.raises(UserError, match="is a model for relations, .* for ner"):
        compare.compare_runs(str(one), str(write_run(tmp_path / "four", [], "ner")), "test")
    with pytest.raises(UserError, match="spearman: not a score that is compared for relations"):
        compare.compare_runs(str(one), str(one), "test", "spearman")
