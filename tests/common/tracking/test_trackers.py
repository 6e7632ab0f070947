"""Tests of trackers: they receive the entries of metrics.jsonl, and their failures do not stop a run."""

from __future__ import annotations

import json
import sys
import types
from typing import ClassVar

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.tracking import metrics_writer, trackers


class Recorder:
    """A tracker that records its calls; `fails` is the method that raises."""

    created: ClassVar[list[Recorder]] = []
    fails = ""

    def __init__(self, run: trackers.RunInfo):
        self.run, self.entries, self.closed = run, [], False
        if self.fails == "__init__":
            raise ConnectionError("no route to host\nin many lines")
        Recorder.created.append(self)

    def log(self, step, metrics):
        if self.fails == "log":
            raise ConnectionError("no route to host\nin many lines")
        self.entries.append((step, dict(metrics)))

    def close(self):
        if self.fails == "close":
            raise ConnectionError("no route to host")
        self.closed = True


@pytest.fixture
def recorder(monkeypatch):
    """Returns the name of a custom tracker."""
    monkeypatch.setattr(Recorder, "created", [])
    monkeypatch.setitem(sys.modules, "own_trackers", types.SimpleNamespace(recorder=Recorder))
    return "own_trackers:recorder"


def write(folder, names, *, resumed_step=0):
    settings = {"seed": 3}
    with metrics_writer.MetricsWriter(str(folder), resumed_step=resumed_step, trackers=names, settings=settings) as log:
        log.write(resumed_step + 1, "train", {"loss": 0.5})
        log.write(resumed_step + 1, "validation", {"loss": 0.75})


def test_a_tracker_receives_the_settings_and_every_entry_and_is_closed(tmp_path, recorder):
    write(tmp_path / "runs" / "small", recorder, resumed_step=4)
    (tracker,) = Recorder.created
    assert tracker.entries == [(5, {"train/loss": 0.5}), (5, {"validation/loss": 0.75})] and tracker.closed
    assert tracker.run.name == "runs/small" and tracker.run.settings == {"seed": 3} and tracker.run.step == 4


def test_a_tracker_is_opened_only_if_named_and_only_in_the_main_process(tmp_path, recorder, monkeypatch):
    write(tmp_path / "a", "")
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    write(tmp_path / "b", recorder)
    assert Recorder.created == []


@pytest.mark.parametrize("fails", ["__init__", "log", "close"])
def test_a_failing_tracker_is_logged_in_one_line_and_the_run_continues(tmp_path, recorder, monkeypatch, capsys, fails):
    monkeypatch.setattr(Recorder, "fails", fails)
    write(tmp_path, recorder)
    assert [entry["split"] for entry in metrics_writer.read_metrics(str(tmp_path))] == ["train", "validation"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "own_trackers:recorder: no route to host; the run continues" in line


def test_the_key_of_a_service_is_not_in_the_line_about_its_failure(tmp_path, monkeypatch, capsys):
    class Leaky(Recorder):
        def log(self, step, metrics):
            raise ConnectionError(f"{'x' * 190} 401 for https://api.example.org?key=5ecre7-a1b2c3")

    monkeypatch.setenv("WANDB_API_KEY", "5ecre7-a1b2c3")
    monkeypatch.setenv("SOME_TOKEN", "1")
    monkeypatch.setitem(sys.modules, "own_trackers", types.SimpleNamespace(recorder=Leaky))
    write(tmp_path, "own_trackers:recorder")
    line = capsys.readouterr().err
    assert "5ecre7" not in line and "the run continues" in line
    assert trackers.redact_secrets("key=5ecre7-a1b2c3, 1 try") == "key=<WANDB_API_KEY>, 1 try"


@pytest.mark.parametrize(
    ("name", "message"),
    [(":x", "Empty module name"), ("wandbb", "no such tracker"), ("os:nothing", "nothing"), ("nowhere:at", "nowhere")],
)
def test_an_unknown_tracker_is_rejected(name, message):
    with pytest.raises(UserError, match=message):
        trackers.check_trackers(name)


def test_without_the_package_of_weights_and_biases_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"electramed_jax\[wandb\]"):
        trackers.check_trackers("wandb")


def test_a_resumed_run_continues_the_same_run_of_weights_and_biases(tmp_path, monkeypatch):
    """Uses a fake module with the interface of wandb 0.31."""
    calls = []

    class Run:
        def define_metric(self, name, step_metric=None):
            calls.append(("metric", name, step_metric))

        def log(self, metrics):
            calls.append(("log", metrics))

        def finish(self):
            calls.append(("finish",))

    def init(*, project, name, id, resume, config, dir):
        calls.append(("init", id, resume, config, dir))
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    write(tmp_path, "wandb")
    write(tmp_path, "wandb", resumed_step=1)
    (first, again) = (call for call in calls if call[0] == "init")
    assert first == again == ("init", (tmp_path / "wandb-id.txt").read_text(), "allow", {"seed": 3}, str(tmp_path))
    assert ("log", {"step": 1, "train/loss": 0.5}) in calls and ("log", {"step": 2, "validation/loss": 0.75}) in calls
    assert ("metric", "*", "step") in calls and calls.count(("finish",)) == 2
    assert json.loads(json.dumps(first[3])) == first[3]
