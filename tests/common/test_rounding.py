from __future__ import annotations

import pytest

from electramed_jax.common.rounding import round_up


@pytest.mark.parametrize(("n", "wanted"), [(0, 0), (1, 128), (128, 128), (129, 256)])
def test_a_size_is_rounded_up_to_a_multiple(n, wanted):
    assert round_up(n, 128) == wanted
