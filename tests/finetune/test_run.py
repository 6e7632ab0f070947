"""Whole runs on a small synthetic corpus: interrupted, resumed, and started with other settings."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import types

import hub_server
import huggingface_hub
import jax
import numpy as np
import pytest
import quick
from invented_corpus import tiny_init_encoder, write_conll

from electramed_jax import cli
from electramed_jax.common import tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, TaskConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.finetune import load_model, make_task, run
from electramed_jax.finetune.training import batches, loop
from electramed_jax.model import flops
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow

STEPS = 30  # 40 sentences, 4 a step, 3 epochs
TIMINGS = {"step_seconds", "tokens_per_second", "eta_seconds", "train_seconds"}


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Compiles without optimization, and once for all runs with the same spec and mesh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        for name in ("jit_train_step", "jit_predict_step"):
            patch.setattr(loop, name, functools.lru_cache(getattr(loop, name)))
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    return write_conll(tmp_path_factory.mktemp("corpus"))


def small_start():
    return tiny_init_encoder(embedding_size=16, hidden_size=32, num_layers=1)


def config_of(corpus: pathlib.Path, **changes: object) -> FinetuneConfig:
    task = TaskConfig(data=str(corpus), max_seq_length=24)
    optimizer = FinetuneOptimizerConfig(learning_rate=0.005, layerwise_lr_decay=0.9)
    settings = dict(task=task, init="scratch", optimizer=optimizer, batch_size=4, epochs=3.0, seeds=2, log_every=4)
    return FinetuneConfig(**settings | changes)


def finetune(config: FinetuneConfig, workdir: pathlib.Path) -> run.Outcome:
    task, began, described = make_task.make_task(config, small_start())
    return run.run_finetuning(config, task, began, described, str(workdir))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> pathlib.Path:
    """The workdir of an uninterrupted run. Do not write to it."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert not finetune(config_of(corpus), workdir).preempted
    return workdir


def preempt(after: int):
    """Replaces `batches.collate`: call number `after` sends SIGTERM to the process in the middle of a step."""
    collate, calls = batches.collate, iter(range(1, 10**6))

    def collate_and_preempt(*args: object) -> batches.Batch:
        if next(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return collate(*args)

    return collate_and_preempt


def read_metrics(seed_folder: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (seed_folder / "metrics.jsonl").read_text().splitlines()]


def seed_files(workdir: pathlib.Path, seed: int) -> tuple[dict, list[dict], dict[str, np.ndarray]]:
    """A seed's scores, its log, and its best parameters, without measured times."""
    own = workdir / f"seed-{seed}"
    scores = json.loads((own / "scores.json").read_text())
    log = read_metrics(own)
    params = tree_rules.named_leaves(load_model.load_finetuned(str(workdir), seed).params)
    return (
        {name: value for name, value in scores.items() if name not in TIMINGS},
        [{name: value for name, value in entry.items() if name not in TIMINGS} for entry in log],
        {name: np.asarray(leaf) for name, leaf in params.items()},
    )


def assert_same_seed(ours: pathlib.Path, theirs: pathlib.Path, seed: int) -> None:
    (scores, log, params), (their_scores, their_log, their_params) = seed_files(ours, seed), seed_files(theirs, seed)
    assert scores == their_scores
    assert log == their_log
    for name, leaf in params.items():
        np.testing.assert_array_equal(leaf, their_params[name], err_msg=name)


def test_a_run_learns_and_its_results_describe_the_data(whole, corpus):
    results = json.loads((whole / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    f1 = results["scores"]["test"]["f1"]
    each = [json.loads((whole / f"seed-{seed}" / "scores.json").read_text())["test"]["f1"] for seed in (0, 1)]
    assert f1["mean"] == pytest.approx(np.mean(each)) and f1["standard_deviation"] == pytest.approx(
        np.std(each, ddof=1)
    )
    assert f1["mean"] > 80, "names ending in -ol are not hard to find"
    assert results["data"]["sizes"]["train"]["sentences"] == 40
    assert results["data"]["tag_schemes"]["test"]["scheme"] == "IOB2"
    assert len(results["data"]["files"]["test"]["sha256"]) == 64
    assert results["warnings"] == [], "the splits share no sentence"
    table = (whole / "results.md").read_text()
    assert f"| f1 | {results['scores']['dev']['f1']['mean']:.2f} ± " in table
    assert "no published score is shown" in table
    assert not (whole / "seed-0" / "checkpoints").exists(), "only the best parameters stay"


def test_test_is_scored_with_the_checkpoint_that_dev_chose(whole, corpus):
    task, _, _ = make_task.make_task(config_of(corpus), small_start())
    for seed in (0, 1):
        scores, log, _ = seed_files(whole, seed)
        dev = {entry["step"]: entry["f1"] for entry in log if entry["split"] == "dev"}
        assert list(dev) == [10, 20, 30]
        assert scores["best_step"] == max(dev, key=dev.get)
        lines = (whole / f"seed-{seed}" / "predictions-test.txt").read_text().split("\n")
        gold = [line.split("\t")[1] for line in lines if line]
        assert gold == [tag for sentence in task._sentences["test"] for tag in sentence.tags]


# in the first epoch of a seed; in the second seed; in the very last step
@pytest.mark.parametrize("after", [3, STEPS + 7, 2 * STEPS])
def test_a_preempted_run_resumes_to_the_same_bits(whole, corpus, tmp_path, monkeypatch, after):
    with monkeypatch.context() as patch:
        patch.setattr(batches, "collate", preempt(after))
        outcome = finetune(config_of(corpus), tmp_path / "run")
    assert outcome.preempted
    assert not finetune(config_of(corpus), tmp_path / "run").preempted
    for seed in (0, 1):
        assert_same_seed(tmp_path / "run", whole, seed)


def test_a_seed_that_is_done_is_not_done_again(whole, corpus, tmp_path, monkeypatch):
    workdir = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(workdir / "seed-1")
    done = []
    monkeypatch.setattr(batches, "collate", lambda *args, collate=batches.collate: done.append(1) or collate(*args))
    finetune(config_of(corpus), workdir)
    assert len(done) == STEPS
    assert_same_seed(workdir, whole, 1)


def test_seeds_can_be_added_later(whole, corpus, tmp_path):
    workdir = shutil.copytree(whole, tmp_path / "run")
    outcome = finetune(config_of(corpus, seeds=3), workdir)
    assert outcome.results["seeds"] == [0, 1, 2]
    assert_same_seed(workdir, whole, 0)


def test_a_damaged_checkpoint_is_passed_over(whole, corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(batches, "collate", preempt(13))
        finetune(config_of(corpus, seeds=1), tmp_path / "run")
    newest = tmp_path / "run" / "seed-0" / "checkpoints" / "13"
    for path in (newest / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    finetune(config_of(corpus, seeds=1), tmp_path / "run")
    assert_same_seed(tmp_path / "run", whole, 0)


def test_another_mesh_comes_to_nearly_the_same_scores(whole, corpus, tmp_path):
    outcome = finetune(config_of(corpus, seeds=1, mesh=MeshConfig(2, 2, 2)), tmp_path / "run")
    (_, log, _), (_, their_log, _) = seed_files(tmp_path / "run", 0), seed_files(whole, 0)
    first, theirs = (next(entry for entry in lines if entry["split"] == "train") for lines in (log, their_log))
    assert first["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert outcome.results["scores"]["test"]["f1"]["mean"] > 80


def test_a_workdir_is_for_one_run(whole, corpus, tmp_path):
    with pytest.raises(UserError, match=r"config.batch_size: 4 -> 2.*new --workdir"):
        finetune(config_of(corpus, batch_size=2), whole)
    other = shutil.copytree(corpus, tmp_path / "other")
    (other / "test.txt").write_text("atenolol B-Drug\n")
    config = config_of(corpus)
    changed = dataclasses.replace(config, task=dataclasses.replace(config.task, test=str(other / "test.txt")))
    with pytest.raises(UserError, match="data.files.test"):
        finetune(changed, whole)
    with pytest.raises(UserError, match="not empty, and not a fine-tuning run"):
        finetune(config, other)


def test_a_workdir_of_an_earlier_version_is_resumed(whole, corpus, tmp_path):
    """It lacks later settings and facts, and names the negative label by a part of it."""
    workdir = shutil.copytree(whole, tmp_path / "run")
    settings, data = (json.loads((workdir / name).read_text()) for name in ("config.json", "data.json"))
    del settings["task"]["primary"], settings["task"]["strict_labels"], data["tag_schemes"]
    settings["text"]["negative"] = "false"
    (workdir / "config.json").write_text(json.dumps(settings))
    (workdir / "data.json").write_text(json.dumps(data))
    assert finetune(config_of(corpus), workdir).results["seeds"] == [0, 1]


def test_a_model_is_exported_with_its_seed_s_scores_on_the_card_and_pushed(whole, tmp_path, monkeypatch, capsys):
    with hub_server.running(monkeypatch) as hub:
        options = [f"--workdir={whole}", f"--output={tmp_path}/out", "--seed=1", "--push=me/ner", "--private", "--json"]
        assert cli.main(["export", *options]) == 0
    assert list(json.loads(capsys.readouterr().out)["pushed"]) == ["me/ner"] and hub.private == {"me/ner": True}
    assert hub.files == {f"me/ner/{path.name}": path.read_bytes() for path in (tmp_path / "out").iterdir()}
    card = huggingface_hub.ModelCard(hub.files["me/ner/README.md"].decode())
    scores = json.loads((whole / "seed-1" / "scores.json").read_text())["test"]
    (result,) = card.data.eval_results
    assert (result.task_type, result.dataset_split) == ("token-classification", "test")
    assert result.metric_value == pytest.approx(scores["f1"], abs=1e-4)
    assert hub.cards, "the Hub validated the metadata"


def test_options_of_pre_trained_models_are_errors_for_a_fine_tuned_model(whole, tmp_path, capsys):
    assert cli.main(["export", f"--workdir={whole}", f"--output={tmp_path}/out", "--data_license=a=b"]) == 2
    assert "--data_license does not apply to" in capsys.readouterr().err


def test_a_tracker_logs_every_seed(corpus, tmp_path, monkeypatch):
    logged = []

    class Recorder:
        def __init__(self, run):
            self.name = run.name

        def log(self, step, metrics):
            logged.append((self.name, *metrics))

        def close(self):
            logged.append((self.name, "closed"))

    monkeypatch.setitem(sys.modules, "own_trackers", types.SimpleNamespace(recorder=Recorder))
    finetune(config_of(corpus, seeds=1, trackers="own_trackers:recorder"), tmp_path / "run")
    assert logged[-1] == ("run/seed-0", "closed")
    assert any("train/loss" in entry for entry in logged) and any("dev/f1" in entry for entry in logged)


def test_the_step_of_a_non_finite_loss_is_named_and_its_metrics_are_written(corpus, tmp_path):
    """The learning rate of step 1 is 0 (warm-up), step 2 moves the parameters, step 3 is the first to show it."""
    config = config_of(corpus, optimizer=FinetuneOptimizerConfig(learning_rate=1e30), log_every=4)
    with pytest.raises(
        UserError, match=r"seed 0: loss is nan at step 3; stopped.*lower config.optimizer.learning_rate"
    ):
        finetune(config, tmp_path / "run")
    *_, last = read_metrics(tmp_path / "run" / "seed-0")
    assert (last["split"], last["step"]) == ("train", 3) and np.isnan(last["loss"])


def test_flops_utilization_is_logged_if_the_peak_of_the_device_is_known(whole, corpus, tmp_path, monkeypatch):
    assert all("model_flops_utilization" not in entry for entry in read_metrics(whole / "seed-0"))
    monkeypatch.setitem(flops.PEAK_FLOPS, jax.devices()[0].device_kind, 1e12)
    finetune(config_of(corpus, seeds=1), tmp_path / "run")
    model, num_labels, rows = small_start().model, 5, 8  # O, B- and I- of two types; a row for each device
    step_flops = flops.finetune_step_flops(model, num_labels, rows, 24)
    timed = [entry for entry in read_metrics(tmp_path / "run" / "seed-0") if "step_seconds" in entry]
    assert len(timed) > 5
    for entry in timed:
        peak = 1e12 * jax.device_count()
        assert entry["model_flops_utilization"] == pytest.approx(step_flops / entry["step_seconds"] / peak)


def test_seeds_at_the_same_time_equal_seeds_one_after_another(whole, corpus, tmp_path):
    """Eight devices are divided among two seeds, so that sums are rounded otherwise."""
    config = config_of(corpus, parallel_seeds=2)
    assert [mesh.devices.size for mesh in run.make_meshes(config)] == [4, 4]
    assert not finetune(config, tmp_path / "run").preempted
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["seeds"] == [0, 1]
    for seed in (0, 1):
        ours, theirs = (read_metrics(folder / f"seed-{seed}") for folder in (tmp_path / "run", whole))
        losses = [[entry["loss"] for entry in log if entry["split"] == "train"] for log in (ours, theirs)]
        np.testing.assert_allclose(*losses, rtol=1e-3)


def test_seeds_on_one_device_are_bit_equal_also_when_both_are_interrupted(corpus, tmp_path, monkeypatch):
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    monkeypatch.setattr(run, "make_meshes", lambda config: [mesh] * config.parallel_seeds)
    finetune(config_of(corpus), tmp_path / "one")
    with monkeypatch.context() as patch:
        patch.setattr(batches, "collate", preempt(31))
        assert finetune(config_of(corpus, parallel_seeds=2), tmp_path / "two").preempted
    assert not (tmp_path / "two/results.json").exists(), "both seeds were interrupted"
    assert not finetune(config_of(corpus, parallel_seeds=2), tmp_path / "two").preempted
    for seed in (0, 1):
        assert_same_seed(tmp_path / "two", tmp_path / "one", seed)


def test_a_seed_that_fails_stops_the_others_after_a_save(corpus, tmp_path, monkeypatch):
    run_seed, collate, calls, trains = loop.run_seed, batches.collate, iter(range(1, 10**6)), threading.Event()

    def fail_seed_1(runner, encoder, folder, seed, stop):
        if seed == 1:
            assert trains.wait(600), "seed 0 trains"
            raise UserError("seed 1 fails")
        return run_seed(runner, encoder, folder, seed, stop)

    def collate_and_note(*args: object) -> batches.Batch:
        if next(calls) == 5:
            trains.set()
        return collate(*args)

    monkeypatch.setattr(loop, "run_seed", fail_seed_1)
    monkeypatch.setattr(batches, "collate", collate_and_note)
    with pytest.raises(UserError, match="seed 1 fails"):
        finetune(config_of(corpus, parallel_seeds=2, epochs=300.0), tmp_path / "run")
    assert list((tmp_path / "run/seed-0/checkpoints").iterdir()) and not (tmp_path / "run/seed-0/scores.json").exists()
