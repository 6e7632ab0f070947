"""How fast a run goes, without its pauses, and when it will be done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class StepTimer:
    """Time spent training, kept across restarts.

    The time of compilation (before `start`), evaluation and checkpoints (inside `paused`) is not counted, so that
    `step_seconds` is what one more step costs.
    """

    def __init__(
        self,
        step: int = 0,
        train_seconds: float = 0.0,
        tokens: float = 0.0,
        *,
        now: Callable[[], float] = time.monotonic,
    ):
        """`step`: steps done so far; `train_seconds` and `tokens`: spent on them, in earlier processes too."""
        self.step, self.train_seconds, self.tokens = step, train_seconds, tokens
        self._now = now
        self._since: float | None = None
        self._interval_seconds = 0.0
        self._interval_steps = 0

    def start(self) -> None:
        """The first step is compiled and done: from here on time is counted."""
        self._since = self._now()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        self._collect()
        try:
            yield
        finally:
            if self._since is not None:
                self._since = self._now()

    def count(self, step: int) -> None:
        """A step was dispatched."""
        self.step = step
        if self._since is not None:
            self._interval_steps += 1

    def tick(self, tokens: float, steps: int, total_steps: int) -> dict[str, float]:
        """Closes an interval; call it once the last step's results have arrived.

        Args:
          tokens: non-pad tokens of the interval's steps.
          steps: how many steps those were, the uncounted first one of a process included.
          total_steps: of the run.

        Returns:
          step_seconds, tokens_per_second and eta_seconds; empty while nothing has been timed.
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

    def _collect(self) -> None:
        if self._since is not None:
            now = self._now()
            self._interval_seconds += now - self._since
            self._since = now

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps; the seconds of an interval still open are in it."""
        self._collect()
        seconds = self.train_seconds + self._interval_seconds
        return {"step": self.step, "train_seconds": seconds, "tokens": self.tokens}


def format_duration(seconds: float) -> str:
    """`90061` as "1 d 1 h", `61` as "1 min 1 s"."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left, parts = int(round(seconds)), []
    for name, size in units:
        if left >= size or (name == "s" and not parts):
            parts.append(f"{left // size} {name}")
            left %= size
    return " ".join(parts[:2])
