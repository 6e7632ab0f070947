"""Split of a run's wall time into parts ("goodput"): every second of a process belongs to exactly one part."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from electramed_jax.common import step_timer

STARTUP, RESTORE, COMPILATION, INPUT_WAIT = "start_up", "restore", "compilation", "input_wait"
STEP, EVALUATION, SAVE = "step", "evaluation", "save"
PARTS = (STARTUP, RESTORE, COMPILATION, INPUT_WAIT, STEP, EVALUATION, SAVE)
LOST = "lost_to_restarts"  # of a run with several starts: time after the save from which the next one resumed
COMPILE_EVENTS = ("/jax/core/compile/backend_compile_duration", "/jax/core/compile/jaxpr_to_mlir_module_duration")

Seconds = dict[str, float]


class RunClock:
    """Splits the time of this process since it was created; the parts add up to it."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic):
        """Starts in the part `STARTUP`."""
        self._now = now
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = STARTUP, now()

    def enter(self, part: str) -> None:
        """Counts the time from here on for `part`."""
        now = self._now()
        self._seconds[self._part] += now - self._since
        self._part, self._since = part, now

    @contextlib.contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Counts the time of the block for `part`, except for blocks inside it."""
        before = self._part
        self.enter(part)
        try:
            yield
        finally:
            self.enter(before)

    @contextlib.contextmanager
    def count_compilation(self) -> Iterator[None]:
        """Counts what jax compiles in the block as compilation, in whichever part it happens."""
        from jax import monitoring

        thread = threading.get_ident()

        def move(event: str, duration_secs: float, **_: str | int) -> None:
            if event in COMPILE_EVENTS and threading.get_ident() == thread:
                self._seconds[self._part] -= duration_secs
                self._seconds[COMPILATION] += duration_secs

        monitoring.register_event_duration_secs_listener(move)
        try:
            yield
        finally:
            monitoring.unregister_event_duration_listener(move)

    def seconds(self) -> Seconds:
        """Returns the seconds of each part so far."""
        self.enter(self._part)
        return dict(self._seconds)


def add_seconds(total: Mapping[str, float], other: Mapping[str, float]) -> Seconds:
    """Returns the sums of two splits."""
    return {name: total.get(name, 0.0) + other.get(name, 0.0) for name in (*PARTS, LOST)}


def describe_seconds(seconds: Mapping[str, float]) -> str:
    """Returns "20 s: start up 3.0 s (15.0%), ...": the sum, and each part that has a share of it."""
    wall = sum(seconds.values())
    parts = ", ".join(
        f"{name.replace('_', ' ')} {_format(value)} ({value / wall:.1%})"
        for name, value in seconds.items()
        if value >= 0.0005 * wall
    )
    return f"{_format(wall)}: {parts}" if wall else "no time"


def _format(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else step_timer.format_duration(seconds)
