"""The parts of a run's wall time add up to it, over kills and restarts."""

from __future__ import annotations

import json
import signal
import time

import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.common.run_clock import COMPILATION, LOST, PARTS, SAVE, STEP, RunClock, describe_seconds
from electramed_jax.training.starts import read_starts, split_wall_time


def start(step: int, began: float, *splits: tuple[int, float], end: str | None = None) -> dict:
    ended = {} if end is None else {"end": end, "last_step": splits[-1][0]}
    return {"step": step, "began": began, **ended} | {
        "splits": [{"step": saved, "seconds": {STEP: seconds - 1, SAVE: 1.0}} for saved, seconds in splits]
    }


@pytest.mark.parametrize(
    ("starts", "kept", "lost"),
    [
        ([start(0, 100.0, (5, 10.0), (9, 20.0), end="finished")], 20, 0),
        # Killed after the save of step 5; the next process began at 160.
        ([start(0, 100.0, (5, 10.0)), start(5, 160.0, (9, 8.0))], 18, 50),
        # The save of step 9 did not become complete: the time from the one of step 5 on is lost.
        ([start(0, 100.0, (5, 10.0), (9, 20.0)), start(5, 160.0, (9, 8.0))], 18, 50),
        # Nothing was saved.
        ([start(0, 100.0), start(0, 160.0, (9, 8.0))], 8, 60),
        ([start(0, 100.0, (5, 10.0), end="preempted"), start(5, 160.0, (9, 8.0))], 18, 50),
        # A run that finished and was continued the next day did not last a day.
        ([start(0, 100.0, (5, 10.0), end="finished"), start(5, 90_000.0, (9, 8.0))], 18, 0),
        ([{"step": 0}], 0, 0),
    ],
    ids=["one-start", "killed", "incomplete-save", "no-save", "preempted", "finished", "earlier-version"],
)
def test_time_that_no_checkpoint_holds_is_lost(starts, kept, lost):
    seconds = split_wall_time(starts)
    assert sum(seconds.values()) - seconds.get(LOST, 0.0) == kept and seconds.get(LOST, 0.0) == lost


def test_each_second_belongs_to_one_part():
    now = [0.0]
    clock = RunClock(now=lambda: now[0])
    now[0] = 3.0
    clock.enter(STEP)
    now[0] = 10.0
    with clock.during(SAVE):
        now[0] = 12.0
        with clock.during(COMPILATION):
            now[0] = 15.0
        now[0] = 16.0
    now[0] = 20.0
    seconds = clock.seconds()
    assert seconds == dict.fromkeys(PARTS, 0.0) | {"start_up": 3.0, STEP: 11.0, SAVE: 3.0, COMPILATION: 3.0}
    assert describe_seconds(seconds).startswith(
        "20.0 s: start up 3.0 s (15.0%), compilation 3.0 s (15.0%), step 11.0 s"
    )


@pytest.mark.slow
def test_the_parts_of_a_run_that_is_killed_and_resumed_add_up(packed, tmp_path, capsys, quick_compilation):
    words = [
        "pretrain",
        *quick_run.settings(packed, log_every=1, save_every=4),
        f"--workdir={tmp_path / 'run'}",
        "--json",
    ]
    began = time.time()
    with quick_run.start(*words) as killed:
        for line in killed.stderr:
            if line.startswith("step 9/"):  # the save of step 8 began after that of step 4 was complete
                killed.send_signal(signal.SIGKILL)
    capsys.readouterr()
    assert cli.main(words) == 0
    measured, output = time.time() - began, capsys.readouterr()
    wall_time = json.loads(output.out.splitlines()[-1])["wall_time"]
    starts = read_starts(str(tmp_path / "run"))
    assert [start["step"] for start in starts] in ([0, 4], [0, 8])
    # Not counted: the start of Python before the command, and the verdict after the run.
    assert measured - (starts[0]["began"] - began) == pytest.approx(sum(wall_time.values()), abs=2.0)
    assert began < starts[0]["began"]
    assert list(wall_time) == [*PARTS, LOST] and min(wall_time.values()) > 0
    assert "wall time " in output.err and "lost to restarts" in output.err
    assert cli.main(["report", str(tmp_path / "run"), "--rows=0"]) == 0
    assert "lost to restarts</td>" in (tmp_path / "run" / "report" / "report.html").read_text()
