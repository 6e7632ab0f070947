"""A run on eight devices in one, two and four processes: the same rows, the same losses, one checkpoint.

A run of two processes is preempted by a SIGTERM to one of them and resumed by four processes on another mesh.
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

pytestmark = pytest.mark.slow  # each test needs a trained run

# float32 losses differ by the order of summation: about 1e-7 a step, which 20 steps of this model do not amplify.
TOLERANCE = 1e-5
STEPS = list(range(1, quick_run.TOTAL_STEPS + 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("pod")


def arguments(packed: pathlib.Path, workdir: pathlib.Path, **changed: object) -> list[str]:
    return ["pretrain", *quick_run.settings(packed, log_every=1, **changed), f"--workdir={workdir}", "--json"]


@pytest.fixture(scope="module")
def single_process(packed, folder, quick_compilation) -> tuple[dict[int, float], pod.Record]:
    """Losses and rows of one process with eight devices, data parallel."""
    with recording(folder / "single-rows"):
        assert cli.main(arguments(packed, folder / "single")) == 0
    return pod.losses(folder / "single"), pod.record_of(folder / "single-rows")


@pytest.fixture(scope="module")
def preempted(packed, folder, quick_compilation) -> list[pod.Process]:
    """Two processes of four devices, data parallel; the second received SIGTERM."""
    run = (folder / "rows", *arguments(packed, folder / "run"))
    with pod.start_processes(2, 4, *run, program=pod.RECORDED_RUN) as processes:
        processes[0].wait_for("step 2/")
        processes[1].popen.send_signal(signal.SIGTERM)
        for process in processes:
            process.wait()
    return processes


@pytest.fixture(scope="module")
def resumed(packed, folder, preempted) -> list[pod.Process]:
    """Four processes of two devices that resume the preempted run with data, fsdp and tensor parallelism."""
    run = (folder / "rows", *arguments(packed, folder / "run", mesh__data=2, mesh__fsdp=2, mesh__tensor=2))
    with pod.start_processes(4, 2, *run, program=pod.RECORDED_RUN) as processes:
        for process in processes:
            process.wait()
    return processes


def saved_step(process: pod.Process) -> int:
    return json.loads(process.stdout.splitlines()[-1])["step"]


def test_all_processes_save_the_same_step_when_one_receives_sigterm(preempted, folder):
    assert [process.popen.returncode for process in preempted] == [42, 42], [process.stderr for process in preempted]
    step = saved_step(preempted[0])
    assert 2 <= step < quick_run.TOTAL_STEPS and (folder / "run" / "checkpoints" / str(step)).is_dir()
    assert f"saved step {step} in" in preempted[0].stderr


def test_other_processes_resume_from_that_step(preempted, resumed):
    assert [process.popen.returncode for process in resumed] == [0, 0, 0, 0], [process.stderr for process in resumed]
    assert f"resuming from step {saved_step(preempted[0])} on 8 cpu device(s) of 4 processes" in resumed[0].stderr


def test_every_step_trains_on_the_rows_of_a_single_process_run(single_process, resumed, folder):
    rows = pod.record_of(folder / "rows").rows
    assert list(rows) == STEPS and rows == single_process[1].rows


def test_each_process_reads_only_its_own_rows(preempted, resumed, folder):
    read, last = pod.record_of(folder / "rows").read, saved_step(preempted[0])
    assert all(read[step] == [4, 4] for step in STEPS if step <= last)
    assert all(read[step] == [2, 2, 2, 2] for step in STEPS if step > last)


def test_every_loss_equals_that_of_a_single_process_run(single_process, resumed, folder):
    assert list(single_process[0]) == STEPS
    assert pod.losses(folder / "run") == pytest.approx(single_process[0], rel=TOLERANCE)


def test_only_the_first_process_prints(preempted, resumed):
    for process in (*preempted[1:], *resumed[1:]):
        lines = [line for line in process.stderr.splitlines() if "preemption_notifier" not in line]  # printed by jax
        assert lines == []
        assert "{" not in process.stdout
    assert resumed[0].stdout.splitlines()[-1].startswith("{")


def test_only_the_first_process_writes(preempted, resumed, folder):
    entries = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["split"] == "train"] == STEPS
    assert len(list((folder / "run" / "tensorboard").iterdir())) == 2, "one file per start"
    assert not list((folder / "run").glob(".*")), "no temporary file of the synchronization is left"
