"""Each alert provoked once on purpose; silence over the published curves of a healthy run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, ObjectiveConfig, OptimizerConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.dataset.manifest import Manifest, Split
from electramed_jax.pretrain.alerts import CHECKS, AlertMonitor, alerts

VOCABULARY = 31_090
CONFIG = Config(
    model=ModelConfig(vocab_size=VOCABULARY),
    optimizer=OptimizerConfig(warmup_steps=10_000),
    data=DataConfig(directory="packed", row_length=128),
    batch_size=128,
    total_steps=1_000_000,
)
SPLIT = Split((), rows=1, tokens=1, documents=1, split_documents=0, fill_fraction=0.99, unigram_cross_entropy=7.18)
MANIFEST = Manifest(
    row_length=128,
    dtype="uint16",
    vocab_size=VOCABULARY,
    vocab_sha256="",
    lower_case=True,
    special=SpecialIds(),
    splits={"train": SPLIT, "validation": SPLIT},
    sources=[],
    dropped={},
    length_histogram={},
    code_version="",
)
HEALTHY = {
    "loss": 13.1,
    "generator_loss": 3.42,
    "generator_accuracy": 0.432,
    "sampled_accuracy": 0.328,
    "discriminator_loss": 0.195,
    "discriminator_accuracy": 0.929,
    "discriminator_precision": 0.74,
    "discriminator_recall": 0.4,
    "replaced_fraction": 0.093,
    "fill_fraction": 0.99,
}
FRESH = HEALTHY | {
    "generator_loss": math.log(VOCABULARY),
    "discriminator_loss": math.log(2),
    "discriminator_accuracy": 0.5,
    "replaced_fraction": 0.15,
}
# google-research/electra issue 3, ELECTRA-Small on OpenWebText, and before it the rise and fall of its first steps
PUBLISHED_AUC = {2_000: 0.60, 4_000: 0.80, 6_000: 0.88, 8_000: 0.75, 10_000: 0.72, 12_000: 0.76, 50_000: 0.87}
PUBLISHED_AUC |= {200_000: 0.90, 400_000: 0.915, 600_000: 0.922, 800_000: 0.929, 1_000_000: 0.935}


def train(*steps: int, **figures: float) -> list[dict]:
    return [{"step": step, "split": "train"} | HEALTHY | figures for step in steps]


def validation(step: int, **figures: float) -> dict:
    return {"step": step, "split": "validation"} | HEALTHY | {"discriminator_auc": 0.9} | figures


def kinds(entries, config=CONFIG, starts=(0,)) -> list[tuple[str, int]]:
    return [(alert.kind, alert.step) for alert in alerts(entries, config, MANIFEST, starts)]


LATE = range(60_000, 61_000, 100)


def test_the_published_curve_of_a_healthy_run_raises_no_alert_nor_does_its_early_transient():
    entries = [{"step": 1, "split": "train"} | FRESH]
    for step, auc in PUBLISHED_AUC.items():
        early = step <= 10_000
        figures = dict(discriminator_recall=0.0, discriminator_accuracy=0.86, replaced_fraction=0.14) if early else {}
        entries += train(*range(step - 500, step + 1, 100), **figures)
        entries.append(validation(step, discriminator_auc=auc, generator_loss=9.0 if early else 3.4))
    assert kinds(entries) == []


def test_the_early_transient_of_the_auc_is_no_alert_in_a_short_run_either():
    short = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(warmup_steps=500), total_steps=20_000)
    curve = [validation(step, discriminator_auc=auc) for step, auc in PUBLISHED_AUC.items() if step <= 12_000]
    assert kinds(curve, short) == []


@pytest.mark.parametrize(
    ("generator", "discriminator", "raised"),
    [
        (math.log(VOCABULARY), 0.79, False),  # kernels of 0.08 in a narrow model: a real run's figures
        (math.log(VOCABULARY), 0.59, False),  # a fresh head that happens to lean to "original": a real run's figures
        (math.log(VOCABULARY) + 3, math.log(2), True),
        (7.0, math.log(2), True),
        (math.log(VOCABULARY), 2.0, True),
    ],
)
def test_a_first_loss_off_ln_v_and_ln_2_is_an_alert(generator, discriminator, raised):
    figures = FRESH | {"generator_loss": generator, "discriminator_loss": discriminator}
    entries = [{"step": 1, "split": "train"} | figures]
    assert kinds(entries) == [("first_loss", 1)] * raised
    assert kinds(entries, dataclasses.replace(CONFIG, init="hf:models/small")) == [], "a run from trained weights"


def test_a_discriminator_no_better_than_calling_everything_original_is_an_alert():
    figures = dict(discriminator_accuracy=0.906, replaced_fraction=0.094, discriminator_recall=0.3)
    assert kinds(train(*LATE, **figures)) == [("all_original", 60_400)]


def test_a_recall_near_zero_is_an_alert_after_the_warm_up_and_not_before():
    assert kinds(train(*range(1_000, 50_000, 500), discriminator_recall=0.0)) == []
    assert kinds(train(*LATE, discriminator_recall=0.05)) == [("low_recall", 60_400)]
    (strong,) = alerts(train(*LATE, discriminator_recall=0.05, generator_accuracy=0.7), CONFIG, MANIFEST)
    assert "too strong" in strong.means and "generator_hidden_size" in strong.advice


def test_a_falling_auc_is_an_alert():
    curve = [validation(60_000 + 5_000 * n, discriminator_auc=auc) for n, auc in enumerate((0.9, 0.91, 0.88, 0.87))]
    assert kinds(curve) == [("falling_auc", 75_000)], "at the second low one: the first may be chance"


def test_a_falling_auc_beside_an_accurate_generator_says_that_the_generator_is_too_strong():
    curve = [
        validation(60_000 + 5_000 * n, discriminator_auc=auc, generator_accuracy=0.7)
        for n, auc in enumerate((0.9, 0.91, 0.88, 0.87))
    ]
    assert kinds(curve) == [("strong_generator", 75_000)]


def test_a_generator_that_knows_word_frequencies_alone_is_an_alert():
    assert kinds([validation(40_000, generator_loss=7.2)]) == [], "in the first twentieth"
    assert kinds([validation(60_000, generator_loss=7.2)]) == [("unigram", 60_000)]


def test_a_generator_loss_that_rises_again_is_an_alert():
    losses = enumerate((7.0, 6.0, 6.3, 6.7))
    assert kinds([validation(1_000 * n, generator_loss=loss) for n, loss in losses]) == [("generator_rises", 3_000)]


def test_rows_emptier_than_the_manifest_says_are_an_alert_unless_chance_explains_them():
    assert kinds(train(*LATE, fill_fraction=0.9)) == [("low_fill", 60_400)]
    few_rows = dataclasses.replace(CONFIG, batch_size=1)
    assert kinds(train(*range(60_000, 60_010), fill_fraction=0.9), few_rows) == []


def test_a_throughput_that_drops_is_an_alert_but_not_where_a_restart_explains_it():
    fast, slow = range(60_000, 62_000, 100), range(62_000, 62_600, 100)
    entries = train(*fast, tokens_per_second=1000.0) + train(*slow, tokens_per_second=600.0)
    assert kinds(entries) == [("slow", 62_100)]
    assert kinds(entries, starts=(0, 61_950)) == []


def test_a_number_that_is_not_finite_is_an_alert():
    assert kinds([validation(60_000, loss=math.nan)]) == [("not_finite_validation", 60_000)]
    assert kinds(train(60_000, gradient_norm=math.inf)) == [("not_finite", 60_000)]


def test_an_alert_is_raised_again_only_after_it_has_ceased_to_hold():
    low, high = dict(discriminator_recall=0.01), dict(discriminator_recall=0.9)
    entries = train(*range(60_000, 62_000, 100), **low)
    entries += train(*range(62_000, 63_000, 100), **high)
    entries += train(*range(63_000, 65_000, 100), **low)
    assert [kind for kind, _ in kinds(entries)] == ["low_recall", "low_recall"]


def test_figures_that_go_back_and_forth_at_a_threshold_raise_one_alert():
    entries = []
    for number, step in enumerate(range(60_000, 90_000, 100)):
        accuracy = 0.9072 if number // 6 % 2 else 0.9067
        entries += train(step, discriminator_accuracy=accuracy, replaced_fraction=0.094)
    assert [kind for kind, _ in kinds(entries)] == ["all_original"]
    curve = [validation(60_000 + 1_000 * n, generator_loss=7.2 if n % 3 else 7.1) for n in range(30)]
    assert [kind for kind, _ in kinds(curve)] == ["unigram"]


def test_a_restarted_run_does_not_repeat_what_was_said():
    entries = train(*LATE, discriminator_recall=0.01)
    watch = AlertMonitor(CONFIG, MANIFEST, entries[:8])
    assert [alert.kind for alert in watch.raised] == ["low_recall"]
    assert [watch.see(entry) for entry in entries[8:]] == [[], []]


def test_an_alert_is_one_line_that_says_what_it_means_and_what_to_try():
    (alert,) = alerts(train(*LATE, discriminator_recall=0.012), CONFIG, MANIFEST)
    line = str(alert)
    assert line.startswith("alert at step 60,400: discriminator_recall 0.012: it calls nearly every")
    assert "; try: " in line and "\n" not in line


@pytest.mark.parametrize("kind", ["mlm", "uniform"])
def test_a_run_without_one_of_the_networks_is_watched_too(kind):
    config = dataclasses.replace(CONFIG, objective=ObjectiveConfig(kind=kind))
    without = {name for name in HEALTHY if name.startswith("discriminator")} if kind == "mlm" else set()
    entries = [{n: v for n, v in e.items() if n not in without} for e in [*train(1, *LATE), validation(61_000)]]
    entries[0]["generator_loss"] = math.log(VOCABULARY)
    if kind == "uniform":
        entries[0]["discriminator_loss"] = math.log(2)
        assert kinds(entries, config) == []
    else:
        for entry in entries:
            entry.pop("discriminator_auc", None), entry.pop("replaced_fraction", None)
        assert kinds(entries, config) == []


def test_every_check_has_a_name_of_its_own():
    names = [name for checks in CHECKS.values() for name in checks]
    assert len(names) == len(set(names))


def test_a_run_says_its_alerts_once_and_notes_its_starts(packed, quick_compilation, tmp_path, capsys):
    """Initial kernels a hundred times too wide, in a run as a user starts it, and stops, and starts again."""
    settings = quick_run.settings(packed, model__kernel_stddev=2.0, total_steps=4, eval_every=4)
    run = ["pretrain", *settings, f"--workdir={tmp_path}/run", "--json"]
    assert cli.main([*run, "--stop_after=2"]) == 0
    said = capsys.readouterr().err
    assert "alert at step 1: generator_loss " in said and "model.kernel_stddev=0.02" in said
    assert cli.main(run) == 0
    captured = capsys.readouterr()
    assert "alert at step" not in captured.err
    (alert,) = json.loads(captured.out)["alerts"]
    assert (alert["kind"], alert["step"]) == ("first_loss", 1)
    starts = json.loads((tmp_path / "run" / "starts.json").read_text())
    assert [start["step"] for start in starts] == [0, 2]
    assert starts[1]["devices"] == 8 and starts[1]["device_kind"] == "cpu"
