"""A run is judged when networks should have learned; before, its verdict is "too short to judge", with the reason."""

from __future__ import annotations

import dataclasses
import math

import pytest
from invented_history import CONFIG, FRESH, HEALTHY, MANIFEST, train, validation

from electramed_jax.config.pretrain import ObjectiveConfig
from electramed_jax.pretrain import verdict as verdict_lib
from electramed_jax.pretrain.alerts import find_alerts

SHORT = dataclasses.replace(CONFIG, total_steps=600)


def judge(entries, config=CONFIG) -> verdict_lib.Verdict:
    return verdict_lib.judge(entries, config, MANIFEST, find_alerts(entries, config, MANIFEST))


def test_a_short_run_that_has_learned_nothing_is_not_healthy():
    unlearned = dict(
        discriminator_auc=0.56,
        discriminator_recall=0.004,
        discriminator_accuracy=0.9071,
        generator_loss=7.3,
    )
    entries = [*train(*range(100, 601, 100), discriminator_recall=0.004), validation(600, **unlearned)]
    assert find_alerts(entries, SHORT, MANIFEST) == []
    verdict = judge(entries, SHORT)
    assert verdict.kind == "too_short"
    assert str(verdict) == (
        "verdict at step 600: too short to judge; networks should have learned after step 10,000; not better than "
        "without learning: discriminator_auc 0.560 (0.500 is chance), discriminator_recall 0.4% of the replaced tokens, "
        "discriminator_accuracy 0.9071 (all original: 0.9070), generator_loss 7.30 (token frequencies alone: 7.18)"
    )
    assert verdict.sentences[0] == (
        "networks should have learned after step 10,000 (the largest of 5,000, the warm-up of 10,000 steps and a "
        "twentieth of the run); the run ends before"
    )
    assert "\n" not in str(verdict) and verdict.learned == ()


def test_what_a_short_run_has_learned_is_listed():
    verdict = judge([*train(*range(100, 601, 100)), validation(600, discriminator_auc=0.7)], SHORT)
    assert verdict.kind == "too_short" and verdict.weak == () and len(verdict.learned) == 4
    assert str(verdict).endswith("after step 10,000; 4 of 4 metrics better than without learning")
    assert verdict.sentences[1].startswith("better than without learning: discriminator_auc 0.700 (0.500 is chance)")
    assert verdict.sentences[2].startswith("no alert among the checks that need no training (finite values, first")


def test_alerts_of_a_short_run_are_in_its_verdict():
    entries = [{"step": 1, "split": "train"} | FRESH | {"discriminator_loss": 2.0}, *train(100, 200)]
    verdict = judge(entries, SHORT)
    assert verdict.kind == "too_short" and verdict.alerts == ("first_loss",)
    assert str(verdict).endswith("; alerts: first_loss")


def test_a_healthy_run_is_healthy_only_after_it_could_have_been_found_otherwise():
    entries = [*train(*range(50_100, 50_600, 100)), validation(50_500)]
    assert judge(entries).kind == "healthy" and judge(entries).title == "no alert"
    assert judge(entries[-3:]).reason == "2 training entries (log_every); metrics are averaged over 5"
    assert judge(entries[:-1]).reason.startswith("no validation after step 50,000 (eval_every)")
    assert judge([*train(*range(49_100, 50_001, 100)), validation(50_000)]).kind == "too_short"


def test_a_run_with_a_weak_metric_but_no_alert_is_not_healthy():
    """Alerts on the AUC need two validations."""
    verdict = judge([*train(*range(50_100, 50_600, 100)), validation(50_500, discriminator_auc=0.56)])
    assert verdict.kind == "weak" and verdict.weak == ("discriminator_auc 0.560 (0.500 is chance)",)


def test_a_long_run_with_alerts_has_them_in_its_verdict():
    verdict = judge([*train(*range(60_000, 61_000, 100), discriminator_recall=0.05), validation(61_000)])
    assert verdict.kind == "alerts" and verdict.alerts == ("low_recall",) and verdict.title == "1 kind of alerts"


@pytest.mark.parametrize("kind", ["mlm", "uniform"])
def test_a_run_without_one_of_the_networks_is_judged_by_the_other(kind):
    config = dataclasses.replace(CONFIG, objective=ObjectiveConfig(kind=kind))
    entries = [*train(*range(50_100, 50_600, 100)), validation(50_500)]
    if kind == "mlm":
        names = {*HEALTHY, "discriminator_auc"}
        absent = {name for name in names if name.startswith("discriminator")} | {"replaced_fraction"}
        entries = [{name: value for name, value in entry.items() if name not in absent} for entry in entries]
    verdict = judge(entries, config)
    assert verdict.kind == "healthy" and verdict.reason == ""
    assert any("generator_loss" in text for text in verdict.learned) == (kind == "mlm")


def test_a_run_without_metrics_or_with_infinite_ones_has_a_verdict():
    assert str(judge([])) == "verdict at step 0: too short to judge; no metrics are logged yet"
    verdict = judge([*train(100, generator_loss=math.nan, discriminator_recall=math.inf)])
    assert verdict.kind == "too_short" and len(verdict.learned) == 1 and verdict.alerts == ("not_finite",)
