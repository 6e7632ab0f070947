from __future__ import annotations

import pytest

from electramed_jax.common.errors import first_line


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError("out of memory\nallocator statistics"), "out of memory"),
        (RuntimeError("\n  out of memory \n"), "out of memory"),
        (RuntimeError(), "RuntimeError"),
        (AssertionError(" \n"), "AssertionError"),
        (RuntimeError("x" * 500), "x" * 200),
    ],
)
def test_the_first_line_of_an_error_is_its_text_or_else_its_type(error, wanted):
    assert first_line(error) == wanted
