"""Rounding of sizes."""

from __future__ import annotations

from typing import Any


def round_up(n: int, multiple: int) -> int:
    """Returns the smallest multiple of `multiple` that is at least `n`."""
    return -(-n // multiple) * multiple


def round_floats(values: Any) -> Any:
    """Returns a value, or a dict of values, with floats rounded to six digits, about the precision of float32."""
    if isinstance(values, dict):
        return {name: round_floats(value) for name, value in values.items()}
    return round(values, 6) if isinstance(values, float) else values
