"""Tests of StepTimer: the step time excludes compilation, evaluation and checkpoints."""

from __future__ import annotations

import pytest

from electramed_jax.common.step_timer import StepTimer, format_duration


class FakeClock:
    """A clock set by the test."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return FakeClock()


def _steps(timer: StepTimer, clock: FakeClock, count: int, seconds: float) -> None:
    for _ in range(count):
        clock.seconds += seconds
        timer.count(timer.step + 1)


def test_the_compiled_first_step_is_not_timed(clock):
    timer = StepTimer(now=clock)
    _steps(timer, clock, 1, 60.0)
    timer.start()
    _steps(timer, clock, 9, 2.0)
    assert timer.tick(tokens=1000.0, steps=10, total_steps=100) == {
        "step_seconds": 2.0,
        "tokens_per_second": 50.0,
        "eta_seconds": 180.0,
    }


def test_pauses_are_not_timed_even_when_they_fail(clock):
    timer = StepTimer(now=clock)
    timer.start()
    _steps(timer, clock, 2, 1.0)

    def pause_and_fail() -> None:
        with timer.paused():
            clock.seconds += 500.0
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        pause_and_fail()
    _steps(timer, clock, 2, 1.0)
    assert timer.tick(tokens=8.0, steps=4, total_steps=4)["step_seconds"] == 1.0


def test_a_pause_before_the_start_does_not_start_the_clock(clock):
    timer = StepTimer(now=clock)
    with timer.paused():
        clock.seconds += 5.0
    clock.seconds += 5.0
    assert timer.tick(tokens=1.0, steps=1, total_steps=10) == {}
    assert timer.train_seconds == 0.0


def test_each_interval_is_timed_by_itself(clock):
    timer = StepTimer(now=clock)
    timer.start()
    _steps(timer, clock, 5, 3.0)
    timer.tick(tokens=5.0, steps=5, total_steps=20)
    _steps(timer, clock, 5, 1.0)
    assert timer.tick(tokens=5.0, steps=5, total_steps=20) == {
        "step_seconds": 1.0,
        "tokens_per_second": 1.0,
        "eta_seconds": 10.0,
    }


def test_a_checkpoint_within_an_interval_includes_the_seconds_so_far(clock):
    timer = StepTimer(now=clock)
    timer.start()
    _steps(timer, clock, 3, 2.0)
    assert timer.state_dict()["train_seconds"] == 6.0
    with timer.paused():
        clock.seconds += 100.0
    _steps(timer, clock, 1, 2.0)
    assert timer.tick(tokens=4.0, steps=4, total_steps=4)["step_seconds"] == 2.0
    assert timer.state_dict()["train_seconds"] == 8.0


def test_totals_continue_after_a_restart(clock):
    timer = StepTimer(now=clock)
    timer.start()
    _steps(timer, clock, 10, 1.0)
    timer.tick(tokens=70.0, steps=10, total_steps=20)
    saved = timer.state_dict()
    assert saved == {"step": 10, "train_seconds": 10.0, "tokens": 70.0}

    resumed = StepTimer(**saved, now=clock)
    clock.seconds += 3600.0
    resumed.start()
    _steps(resumed, clock, 5, 2.0)
    assert resumed.tick(tokens=35.0, steps=5, total_steps=20)["eta_seconds"] == 10.0
    assert resumed.state_dict() == {"step": 15, "train_seconds": 20.0, "tokens": 105.0}


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (90_061, "1 d 1 h"),
    ],
)
def test_durations_are_formatted_in_two_units_at_most(seconds, wanted):
    assert format_duration(seconds) == wanted
