"""Tables in Markdown and, for a terminal, in aligned columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from electramed_jax.common import console

# Characters with a meaning in a line of Markdown; "_" only outside of words.
_MARKDOWN = re.compile(r"[\\`*\[\]~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^(?:#|[-+](?= ))")


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table of a header and rows, each value formatted by `cell`."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell(value) for value in line)} |" for line in lines)


def align(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Returns the lines of a table for a terminal: columns of equal width, numbers to the right."""
    lines = [list(head), *([_plain(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    is_right = [all(isinstance(row[column], int | float) for row in rows) and bool(rows) for column in range(len(head))]
    return [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_right, strict=True)
        ).rstrip()
        for line in lines
    ]


def _plain(value: Any) -> str:
    return cell(value) if isinstance(value, bool | int | float) else one_line(value)


def cell(value: Any) -> str:
    """Returns the text of a table cell: "yes" or "no", 1,234, 0.1234 (four significant digits), or escaped text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape(value).replace("|", "\\|")


def escape(value: Any) -> str:
    r"""Returns the text of a value in one line that Markdown shows as it is.

    HTML tags, links, images, emphasis and code in a file name or an article become text. Underscores inside a word
    stay: they mean nothing there. Control characters become escapes such as `\\x1b`.
    """
    text = _MARKDOWN.sub(r"\\\g<0>", one_line(value))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def one_line(value: Any) -> str:
    r"""Returns the text of a value in one line; control characters become escapes such as `\\x1b`."""
    return console.printable(" ".join(str(value).split()))
