"""Tests of timing: only the repeats after the warm-up count."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.timing import Timing, benchmark


def test_the_warm_up_is_kept_apart_and_not_counted():
    seconds = iter([9.0, 5.0, 1.0, 2.0, 4.0])
    timing = benchmark(lambda: next(seconds), warm_up=2, repeats=3)
    assert timing == Timing(9.0, (1.0, 2.0, 4.0))
    assert (timing.median, timing.quartiles) == (2.0, (1.5, 3.0))
    assert timing.to_json()["max"] == 4.0


def test_one_repeat_has_no_spread():
    assert Timing(3.0, (2.0,)).quartiles == (2.0, 2.0)


@pytest.mark.parametrize("counts", [{"warm_up": 0, "repeats": 1}, {"warm_up": 1, "repeats": 0}])
def test_a_timing_without_warm_up_or_repeats_is_rejected(counts):
    with pytest.raises(UserError, match="wanted 1 or more"):
        benchmark(lambda: 1.0, **counts)
