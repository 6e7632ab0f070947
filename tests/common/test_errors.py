from __future__ import annotations

import pytest

from electramed_jax.common.errors import MAX_MESSAGE, UserError, first_line


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


def test_a_message_that_quotes_a_damaged_file_keeps_its_start_and_the_next_step():
    message = str(UserError(f"a.json: unknown key {'x' * 100_000}; write the file again"))
    assert len(message) < MAX_MESSAGE + 10
    assert message.startswith("a.json: unknown key xxx") and message.endswith("xxx; write the file again")
