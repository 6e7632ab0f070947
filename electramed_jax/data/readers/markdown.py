"""Markdown reader: a file is one document; its first heading is the title, further headings begin sections.

The text loses its markup: emphasis, links (the text of a link stays), images, code, rules, HTML comments, and the block
of settings (front matter) at the start.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import Document, ReadErrors, ReadOptions, text_id

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_RULE = re.compile(r" {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$")
_DEFINITION = re.compile(r" {0,3}\[[^\]]+\]:\s")
_TABLE_RULE = re.compile(r"\s*\|?[\s:|-]+\|[\s:|-]*$")
_BLOCK_MARK = re.compile(r"\s*(?:>\s?)*(?:[-*+]\s+|\d{1,9}[.)]\s+)?")
_INLINE = (
    (re.compile(r"<!--.*?-->", re.DOTALL), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])"), r"\1"),
    (re.compile(r"<(https?://[^>\s]+)>"), r"\1"),
    (re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1"), r"\2"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]+?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\w)_(?=\S)([^_]+?)(?<=\S)_(?!\w)"), r"\1"),
    (re.compile(r"`([^`]+)`"), r"\1"),
    (re.compile(r"\\([\\`*_{}\[\]()#+\-.!|])"), r"\1"),
)


def read(errors: ReadErrors, options: ReadOptions, *_: object) -> Iterator[Document]:
    """Yields the document of the file `errors.path`.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    lines, repair, last = [], "", 0
    for number, line, replaced in byte_stream.read_lines(errors):
        lines.append(line.rstrip("\r"))
        if replaced:
            last, repair = number, replaced
    if repair:
        byte_stream.report_replaced_bytes(errors, last, repair)
    title, sections = _parse(_without_front_matter(lines), options)
    document = Document("", None, title, sections, None, os.path.basename(errors.path))
    if title or sections:
        yield Document(text_id(document.text), None, title, sections, None, document.source)


def _without_front_matter(lines: list[str]) -> list[str]:
    if lines and lines[0].removeprefix("\ufeff").strip() == "---" and "---" in lines[1:]:
        return lines[lines.index("---", 1) + 1 :]
    return lines


def _parse(lines: list[str], options: ReadOptions) -> tuple[str, tuple[tuple[str | None, str], ...]]:
    """Returns (title, sections)."""
    title, label = "", None
    pieces: list[str] = []  # lines of the section so far, as they are written
    sections: list[tuple[str | None, str]] = []
    in_code = False

    def begin_section(heading: str) -> None:
        nonlocal title, label
        if text := _plain(pieces):
            sections.append((label, text))
        pieces.clear()
        if not title and not sections:
            title, label = heading, None
        else:
            label = heading if options.section_labels else None

    for line in lines:
        if _FENCE.match(line):
            in_code = not in_code
        elif in_code:
            continue
        elif heading := _HEADING.match(line):
            begin_section(_plain([heading[2]]))
        elif pieces and pieces[-1].strip() and _UNDERLINE.match(line):
            above = pieces.pop()
            begin_section(_plain([above]))
        elif not (_RULE.match(line) or _DEFINITION.match(line) or _TABLE_RULE.match(line)):
            pieces.append(line)
    if text := _plain(pieces):
        sections.append((label, text))
    return title, tuple(sections)


def _plain(lines: list[str]) -> str:
    """Joins the lines of each paragraph and removes the markup."""
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        body = _BLOCK_MARK.sub("", line, count=1).strip().strip("|").strip()
        if not body:
            paragraphs.append([])
        elif line.strip() != body:  # an item of a list or a row of a table begins a line of its own
            paragraphs.append([body])
        else:
            paragraphs[-1].append(body)
    text = "\n".join(" ".join(paragraph) for paragraph in paragraphs if paragraph)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return text.strip()
