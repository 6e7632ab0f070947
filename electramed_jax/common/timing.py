"""How long something takes: repeated, and told with its spread."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from electramed_jax.common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of every repeat, in order; `first` of the one before them all, compilation and caches included."""

    first: float
    repeats: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.repeats)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.repeats) == 1:
            return self.repeats * 2
        low, _, high = statistics.quantiles(self.repeats, n=4, method="inclusive")
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles
        return (
            f"median {self.median:.4f} s, quartiles {low:.4f} to {high:.4f}, all {min(self.repeats):.4f} to "
            f"{max(self.repeats):.4f}, of {len(self.repeats)}; the first {self.first:.2f} s"
        )

    def to_json(self) -> dict[str, Any]:
        low, high = self.quartiles
        spread = {"median": self.median, "low_quartile": low, "high_quartile": high}
        return spread | {"min": min(self.repeats), "max": max(self.repeats), "first": self.first, "all": self.repeats}


def time_call(run: Callable[[], Any]) -> float:
    """Seconds of one call, which returns when all is done."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def benchmark(run: Callable[[], float], *, warm_up: int, repeats: int) -> Timing:
    """Calls `run`, which returns the seconds that count, `warm_up` times and then `repeats` times.

    Raises:
      UserError: fewer than one of either: what is compiled or read first would be counted.
    """
    for name, value in (("warm_up", warm_up), ("repeats", repeats)):
        if value < 1:
            raise UserError(f"--{name}={value}: wanted 1 or more")
    warm: Sequence[float] = [run() for _ in range(warm_up)]
    return Timing(warm[0], tuple(run() for _ in range(repeats)))
