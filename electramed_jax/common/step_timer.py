"""Step time, throughput and ETA of a training run, without its pauses."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator


class StepTimer:
    """Measures the time spent on training steps, kept across restarts.

    The time of compilation (before `start`), evaluation and checkpoints (inside `paused`) is not counted, so that
    `step_seconds` is the cost of one more step.

    Attributes:
      step: steps done, in earlier processes too.
      train_seconds: seconds of all intervals that `tick` closed.
      tokens: non-pad tokens of those intervals.
    """

    def __init__(
        self,
        step: int = 0,
        train_seconds: float = 0.0,
        tokens: float = 0.0,
        *,
        now: Callable[[], float] = time.monotonic,
    ):
        """Continues from a `state_dict`, or starts at step 0; `now` returns the time in seconds."""
        self.step, self.train_seconds, self.tokens = step, train_seconds, tokens
        self._now = now
        self._since: float | None = None
        self._interval_seconds = 0.0
        self._interval_steps = 0

    def start(self) -> None:
        """Starts to count time; to be called after the first step, which includes the compilation."""
        self._since = self._now()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the time inside the block."""
        self._collect()
        try:
            yield
        finally:
            if self._since is not None:
                self._since = self._now()

    def count(self, step: int) -> None:
        """Counts a dispatched step."""
        self.step = step
        if self._since is not None:
            self._interval_steps += 1

    def tick(self, tokens: float, steps: int, total_steps: int) -> dict[str, float]:
        """Closes an interval; to be called when the results of its last step have arrived.

        Args:
          tokens: non-pad tokens of the interval's steps.
          steps: number of these steps, including the first step of a process, which is not timed.
          total_steps: steps of the whole run.

        Returns:
          step_seconds, tokens_per_second and eta_seconds; empty while no step has been timed.
        """
        self._collect()
        timed, seconds = self._interval_steps, self._interval_seconds
        self._interval_steps, self._interval_seconds = 0, 0.0
        self.train_seconds += seconds
        self.tokens += tokens
        if not timed or not seconds:
            return {}
        step_seconds = seconds / timed
        return {
            "step_seconds": step_seconds,
            "tokens_per_second": tokens / steps / step_seconds,
            "eta_seconds": (total_steps - self.step) * step_seconds,
        }

    def state_dict(self) -> dict[str, float]:
        """Returns the arguments for a timer that continues from here; includes the seconds of the open interval."""
        self._collect()
        seconds = self.train_seconds + self._interval_seconds
        return {"step": self.step, "train_seconds": seconds, "tokens": self.tokens}

    def _collect(self) -> None:
        if self._since is not None:
            now = self._now()
            self._interval_seconds += now - self._since
            self._since = now


def format_duration(seconds: float) -> str:
    """Formats seconds in at most two units: `90061` as "1 d 1 h", `61` as "1 min 1 s"; NaN as "unknown"."""
    if not math.isfinite(seconds):
        return "unknown"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    parts: list[str] = []
    for name, size in units:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])
