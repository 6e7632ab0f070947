"""Services that keep runs are told what metrics.jsonl is told, and cannot stop a run."""

from __future__ import annotations

import json
import sys
import types

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.tracking import metrics_writer, trackers


class Recorder:
    """A tracker that remembers; `fails` names the method that raises."""

    made: list[Recorder] = []
    fails = ""

    def __init__(self, run: trackers.RunInfo):
        self.run, self.entries, self.closed = run, [], False
        if self.fails == "made":
            raise ConnectionError("no route to host\nin many lines")
        Recorder.made.append(self)

    def log(self, step, figures):
        if self.fails == "log":
            raise ConnectionError("no route to host\nin many lines")
        self.entries.append((step, dict(figures)))

    def close(self):
        if self.fails == "close":
            raise ConnectionError("no route to host")
        self.closed = True


@pytest.fixture
def recorder(monkeypatch):
    """The name of a tracker of one's own."""
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setitem(sys.modules, "own_trackers", types.SimpleNamespace(recorder=Recorder))
    return "own_trackers:recorder"


def write(folder, names, *, resumed_step=0):
    settings = {"seed": 3}
    with metrics_writer.MetricsWriter(str(folder), resumed_step=resumed_step, trackers=names, settings=settings) as log:
        log.write(resumed_step + 1, "train", {"loss": 0.5})
        log.write(resumed_step + 1, "validation", {"loss": 0.75})


def test_a_tracker_is_told_every_entry_with_the_run_s_settings_and_closed(tmp_path, recorder):
    write(tmp_path / "runs" / "small", recorder, resumed_step=4)
    (made,) = Recorder.made
    assert made.entries == [(5, {"train/loss": 0.5}), (5, {"validation/loss": 0.75})] and made.closed
    assert made.run.name == "runs/small" and made.run.settings == {"seed": 3} and made.run.step == 4


def test_none_is_told_unless_named_and_only_by_the_main_process(tmp_path, recorder, monkeypatch):
    write(tmp_path / "a", "")
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    write(tmp_path / "b", recorder)
    assert Recorder.made == []


@pytest.mark.parametrize("fails", ["made", "log", "close"])
def test_what_a_tracker_fails_to_do_is_said_in_one_line_and_the_run_goes_on(
    tmp_path, recorder, monkeypatch, capsys, fails
):
    monkeypatch.setattr(Recorder, "fails", fails)
    write(tmp_path, recorder)
    assert [entry["split"] for entry in metrics_writer.read_metrics(str(tmp_path))] == ["train", "validation"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "own_trackers:recorder: no route to host; the run continues" in line


@pytest.mark.parametrize(
    ("name", "said"), [("wandbb", "no such tracker"), ("os:nothing", "nothing"), ("nowhere:at", "nowhere")]
)
def test_a_tracker_that_is_not_there_is_refused_at_the_door(name, said):
    with pytest.raises(UserError, match=said):
        trackers.check_trackers(name)


def test_weights_and_biases_asks_for_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"electramed_jax\[wandb\]"):
        trackers.check_trackers("wandb")


def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(tmp_path, monkeypatch):
    """Against a stand-in that takes what wandb 0.31 takes."""
    calls = []

    class Run:
        def define_metric(self, name, step_metric=None):
            calls.append(("metric", name, step_metric))

        def log(self, figures):
            calls.append(("log", figures))

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
