"""Repeated timing of a function, with the spread of the repeats."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from electramed_jax.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of a repeated call.

    Attributes:
      first: seconds of the very first call, which includes compilation and cold caches.
      repeats: seconds of each call after the warm-up, in order.
    """

    first: float
    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the repeats, seconds."""
        return statistics.median(self.repeats)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile of the repeats, seconds."""
        if len(self.repeats) == 1:
            return self.repeats[0], self.repeats[0]
        low, _, high = statistics.quantiles(self.repeats, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles
        return (
            f"median {self.median:.4f} s, quartiles {low:.4f} to {high:.4f}, all {min(self.repeats):.4f} to "
            f"{max(self.repeats):.4f}, of {len(self.repeats)}; the first {self.first:.2f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the median, quartiles, extremes and all repeats by name, seconds."""
        low, high = self.quartiles
        spread = {"median": self.median, "low_quartile": low, "high_quartile": high}
        return spread | {"min": min(self.repeats), "max": max(self.repeats), "first": self.first, "all": self.repeats}


def time_call(run: Callable[[], Any]) -> float:
    """Returns the seconds of one call of `run`, which must return only when its work is finished."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def benchmark(run: Callable[[], float], *, warm_up: int, repeats: int) -> Timing:
    """Calls `run` `warm_up` times, then `repeats` times, and collects the seconds that it returns.

    Raises:
      UserError: `warm_up` or `repeats` is below 1. Without a warm-up, compilation would be counted.
    """
    for name, value in (("warm_up", warm_up), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"--{name}={value}: wanted 1 or more")
    warm: Sequence[float] = [run() for _ in range(warm_up)]
    return Timing(warm[0], tuple(run() for _ in range(repeats)))
