"""Text from file names, labels and articles stays text in Markdown."""

from __future__ import annotations

import pytest

from electramed_jax.common import markdown

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![](https://example.org/pixel.png)",
    "a | b | c",
    "`code` *bold* _slanted_ ~~gone~~",
    "&lt;b&gt;",
    "# title",
    "- item",
    "\\| escaped",
    "line\nbreak\r\n\n---",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_renderer_shows_the_text_itself(text):
    renderer = pytest.importorskip("markdown_it", reason="an independent Markdown renderer")
    import lxml.html

    shown = lxml.html.fromstring(renderer.MarkdownIt("commonmark").render(markdown.escape(text)))
    assert [element.tag for element in shown.iter()] == ["p"]
    assert shown.text_content().strip() == " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_renderer_shows_the_text_itself_in_a_table(text):
    renderer = pytest.importorskip("markdown_it", reason="an independent Markdown renderer")
    import lxml.html

    table = markdown.table(["name", "count"], [[text, 3]])
    shown = lxml.html.fromstring(renderer.MarkdownIt("commonmark").enable("table").render(table))
    assert {element.tag for element in shown.iter()} == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [cell.text_content() for cell in shown.iter("td")] == [" ".join(text.split()), "3"]


def test_names_with_underscores_stay_readable():
    assert markdown.escape("pubmed_2024_baseline") == "pubmed_2024_baseline"


def test_control_characters_become_escapes():
    assert markdown.one_line("a\x1b[31m\x9b\u202e") == r"a\x1b[31m\x9b\u202e"
