"""One run on eight devices of one process, of two, of four: the same rows, the same numbers, one checkpoint.

A run of two processes is told to end through one of them, and goes on as four with another mesh.
"""

from __future__ import annotations

import json
import pathlib
import signal

import pod
import pytest
import quick_run
from recorded_run import recording

from electramed_jax import cli

# Losses of float32 differ in the order of summation alone: some 1e-7 a step, which 20 steps of this model do not amplify.
TOLERANCE = 1e-5
STEPS = list(range(1, quick_run.TOTAL_STEPS + 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("pod")


def arguments(packed: pathlib.Path, workdir: pathlib.Path, **changed: object) -> list[str]:
    return ["pretrain", *quick_run.settings(packed, log_every=1, **changed), f"--workdir={workdir}", "--json"]


@pytest.fixture(scope="module")
def alone(packed, folder, quick_compilation) -> tuple[dict[int, float], pod.Record]:
    """Losses and rows of one process with eight devices, split by data."""
    with recording(folder / "alone-rows"):
        assert cli.main(arguments(packed, folder / "alone")) == 0
    return pod.losses(folder / "alone"), pod.record_of(folder / "alone-rows")


@pytest.fixture(scope="module")
def told(packed, folder, quick_compilation) -> list[pod.Process]:
    """Two processes of four devices, split by data, the second of which was sent SIGTERM."""
    run = (folder / "rows", *arguments(packed, folder / "run"))
    with pod.started(2, 4, *run, program=pod.RECORDED_RUN) as processes:
        processes[0].wait_for("step 2/")
        processes[1].popen.send_signal(signal.SIGTERM)
        for process in processes:
            process.ended()
    return processes


@pytest.fixture(scope="module")
def resumed(packed, folder, told) -> list[pod.Process]:
    """Four processes of two devices that go on where those were, split by data, parameters and tensors."""
    run = (folder / "rows", *arguments(packed, folder / "run", mesh__data=2, mesh__fsdp=2, mesh__tensor=2))
    with pod.started(4, 2, *run, program=pod.RECORDED_RUN) as processes:
        for process in processes:
            process.ended()
    return processes


def saved_step(process: pod.Process) -> int:
    return json.loads(process.out.splitlines()[-1])["step"]


def test_all_stop_at_one_step_and_save_it_when_one_is_told_to(told, folder):
    assert [process.popen.returncode for process in told] == [42, 42], [process.said for process in told]
    step = saved_step(told[0])
    assert 2 <= step < quick_run.TOTAL_STEPS and (folder / "run" / "checkpoints" / str(step)).is_dir()
    assert f"saved step {step} in" in told[0].said


def test_others_go_on_from_that_step(told, resumed):
    assert [process.popen.returncode for process in resumed] == [0, 0, 0, 0], [process.said for process in resumed]
    assert f"going on from step {saved_step(told[0])} on 8 cpu device(s) of 4 processes" in resumed[0].said


def test_every_step_sees_the_rows_that_a_lone_process_sees(alone, resumed, folder):
    rows = pod.record_of(folder / "rows").rows
    assert list(rows) == STEPS and rows == alone[1].rows


def test_each_process_reads_its_own_rows_alone(told, resumed, folder):
    read, last = pod.record_of(folder / "rows").read, saved_step(told[0])
    assert all(read[step] == [4, 4] for step in STEPS if step <= last)
    assert all(read[step] == [2, 2, 2, 2] for step in STEPS if step > last)


def test_every_loss_is_that_of_a_lone_process(alone, resumed, folder):
    assert list(alone[0]) == STEPS
    assert pod.losses(folder / "run") == pytest.approx(alone[0], rel=TOLERANCE)


def test_the_first_process_alone_speaks(told, resumed):
    for process in (*told[1:], *resumed[1:]):
        ours = [line for line in process.said.splitlines() if "preemption_notifier" not in line]  # jax's own
        assert ours == []
        assert "{" not in process.out
    assert resumed[0].out.splitlines()[-1].startswith("{")


def test_the_first_process_alone_writes(told, resumed, folder):
    entries = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["split"] == "train"] == STEPS
    assert len(list((folder / "run" / "tensorboard").iterdir())) == 2, "one file a start"
    assert not list((folder / "run").glob(".*")), "nothing is left of how they agreed"
