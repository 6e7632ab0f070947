"""A process that is lost or hangs ends all processes of a run with one line that names it."""

from __future__ import annotations

import pathlib
import signal
import socket
from collections.abc import Iterator

import pod
import pytest

from electramed_jax.common.errors import EXIT_PREEMPTED
from electramed_jax.common.processes.watchdog import BATCH, EVALUATION, OTHER, SAVE, STEP, Watchdog

HUNG_LOADER = pathlib.Path(pod.__file__).with_name("hung_loader.py")
HOST = socket.gethostname()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Store:
    """The key-value store of jax's coordination service, within one process."""

    def __init__(self):
        self.values: dict[str, str] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool) -> None:
        self.values[key] = value

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def key_value_try_get(self, key: str) -> str:
        return self.values[key]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pair(clock) -> Iterator[list[Watchdog]]:
    """Two processes that wait for step 7 of a run with a limit of 30 seconds."""
    store = Store()
    pair = [Watchdog(store, number, 2, now=clock) for number in range(2)]
    with pair[0].limits(30.0, 5.0), pair[1].limits(30.0, 5.0):
        for one in pair:
            with one.waiting(STEP, 6):
                clock.seconds += 1
        yield pair


def exchange(pair: list[Watchdog]) -> list[str]:
    """Exchanges beats; returns the lines with which each process would end."""
    for one in (*pair, *pair):
        one.exchange()
    return [one.judge() for one in pair]


def test_processes_that_answer_go_on(pair, clock):
    for _ in range(10):
        clock.seconds += 20
        assert exchange(pair) == ["", ""]


def test_a_process_without_a_beat_for_40_seconds_is_named(pair, clock):
    exchange(pair)
    pair[0].exchange()
    for seconds, line in ((39, ""), (2, f"process 1 ({HOST}) has not answered for 41 s: it ended, hangs or lost its")):
        clock.seconds += seconds
        pair[0].exchange()
        assert pair[0].judge().startswith(line) and bool(line) == bool(pair[0].judge())


def test_if_the_store_does_not_answer_process_0_is_named(pair, clock):
    exchange(pair)
    clock.seconds += 41
    assert pair[1].judge().startswith(f"process 0 ({HOST}) has not answered for 41 s")


def test_a_process_that_ends_gives_its_reason_to_the_others(pair, clock):
    pair[0]._end = "the disk is full"
    assert exchange(pair)[1] == "", "it may fail for the same reason"
    clock.seconds += 6
    assert exchange(pair)[1] == f"process 0 ({HOST}) ended: the disk is full"


@pytest.mark.parametrize(
    ("kind", "doing"),
    [(BATCH, "has waited for its batch of step 7 for 31 s"), (OTHER, "has done something else for 31 s since step 6")],
)
def test_the_process_with_the_least_progress_is_named(pair, clock, kind, doing):
    with pair[0].waiting(STEP, 7):
        if kind == BATCH:
            with pair[1].waiting(BATCH, 7):
                clock.seconds += 31
                line = exchange(pair)[0]
        else:
            clock.seconds += 31
            line = exchange(pair)[0]
    assert "longer than 30 s (config.hang_seconds)" in line and line.endswith(f"process 1 ({HOST}) {doing}")


def test_a_step_that_no_process_finishes_is_not_blamed_on_a_host(pair, clock):
    with pair[0].waiting(STEP, 7), pair[1].waiting(STEP, 7):
        clock.seconds += 31
        assert "all processes wait for it; a device or the network" in exchange(pair)[0]


def test_the_automatic_limit_is_twenty_median_steps_and_at_least_300_seconds(clock):
    for step_seconds, allowed, too_long in ((1, 299, 301), (60, 1199, 1201)):
        alone = Watchdog(now=clock)
        alone.start = lambda: None
        with alone.limits(0.0, 5.0):
            for step in range(3):
                with alone.waiting(STEP, step):
                    clock.seconds += step_seconds
            for seconds, ends in ((allowed, False), (too_long, True)):
                with alone.waiting(BATCH, 4):
                    clock.seconds += seconds
                    assert bool(alone.judge()) == ends


def test_a_first_step_may_compile_for_an_hour(clock):
    alone = Watchdog(now=clock)
    alone.start = lambda: None
    with alone.limits(0.0, 5.0), alone.waiting(STEP, 1):
        clock.seconds += 3599
        assert not alone.judge()
        clock.seconds += 2
        assert alone.judge()


@pytest.mark.parametrize(("kind", "doing"), [(SAVE, "for the save of step 7"), (EVALUATION, "for its devices")])
def test_a_save_or_a_batch_of_an_evaluation_may_take_an_hour(pair, clock, kind, doing):
    with pair[0].waiting(EVALUATION, 7), pair[1].waiting(kind, 7):
        for _ in range(3):  # batches of an evaluation
            clock.seconds += 3500
            pair[0].note_progress()
            pair[1].note_progress()
            assert exchange(pair) == ["", ""]
        clock.seconds += 3601
        line = exchange(pair)[0]
    assert line.startswith((f"{kind} 7 took longer than 3600 s: ", "evaluation 7 took longer than 3600 s: "))
    who = f"process 1 ({HOST}) has waited {doing} for 3601 s" if kind == SAVE else "all processes wait for it"
    assert who in line


def test_all_processes_end_with_the_line_of_one(pair, clock):
    lines: list[str] = []
    pair[0]._exit_process = lines.append
    pair[0]._finish("process 1 hangs")
    assert exchange(pair)[1] == "process 1 hangs" == lines[0]


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("cause", ["limit", "sigterm"])
def test_a_hung_loader_ends_all_processes_and_its_host_is_named(packed, tmp_path, cause):
    limits = {"hang_seconds": 3} if cause == "limit" else {"preemption_grace_seconds": 3}
    words = pod.quick_run.settings(packed, log_every=1, **limits)
    run = (1, 4, "pretrain", *words, f"--workdir={tmp_path / 'run'}")
    with pod.start_processes(2, 1, *run, program=HUNG_LOADER) as processes:
        if cause == "sigterm":
            processes[0].wait_for("step 2/")
            processes[1].popen.send_signal(signal.SIGTERM)
        assert [process.wait() for process in processes] == [EXIT_PREEMPTED] * 2
    for process in processes:
        last = process.stderr.splitlines()[-1]
        assert f"process 1 ({HOST}) has waited for its batch of step" in last, process.stderr
        assert ("within 3 s after SIGTERM" if cause == "sigterm" else "longer than 3 s (config.hang_seconds)") in last


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_hung_loader_of_a_single_process_ends_it_after_sigterm(packed, tmp_path):
    words = pod.quick_run.settings(packed, log_every=1, preemption_grace_seconds=1)
    run = (0, 4, "pretrain", *words, f"--workdir={tmp_path / 'run'}")
    with pod.start_processes(1, 1, *run, program=HUNG_LOADER) as (process,):
        process.wait_for("step 2/")
        process.popen.send_signal(signal.SIGTERM)
        assert process.wait() == EXIT_PREEMPTED
        assert "did not end within 1 s after SIGTERM: this process" in process.stderr
