"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table of a header and rows, each value formatted by `cell`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(value) for value in line)} |" for line in lines)


def cell(value: Any) -> str:
    """Returns the text of a table cell: "yes" or "no", 1,234, 0.1234 (four significant digits), or escaped text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return one_line(value).replace("|", "\\|")


def one_line(value: Any) -> str:
    """Returns the text of a value with each run of white space replaced by one space."""
    return " ".join(str(value).split())
