"""Escaped text, tables and lists of an HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


class Markup(str):
    """A string that is HTML; other strings are text and are escaped."""


def text(value: str) -> str:
    """Returns the HTML of a text; `Markup` is unchanged."""
    return value if isinstance(value, Markup) else html.escape(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> Markup:
    """Returns a table; the columns in `numbers` are aligned to the right."""
    right = set(numbers)

    def line(cells: Sequence[str], tag: str) -> str:
        columns = (f"<{tag}{' class=n' if i in right else ''}>{text(cell)}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr>{''.join(columns)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return Markup(f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>")


def definitions(rows: Mapping[str, str]) -> Markup:
    """Returns a list of labels with their values."""
    pairs = (f"<div><dt>{text(label)}</dt><dd>{text(value)}</dd></div>" for label, value in rows.items())
    return Markup(f"<dl>{''.join(pairs)}</dl>")
