"""Text of the elements of a JATS article: paragraphs as lines, formulas as text, citations by number removed.

- Inline markup is removed and its text kept, with the rules of `pubmed_text` for superscripts and subscripts.
- A citation of references by number (`[1,2]`, superscript `3-5`) is removed with its brackets; one by name
  (`Smith et al., 2010`) is a part of the sentence and stays. References to figures, tables and sections stay.
- A formula is its MathML (`mathml`); without MathML, its TeX without the preamble.
- Figures, tables and supplementary files that are inside a paragraph are no part of its text.
- Lists, quotations and displayed formulas are lines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from electramed_jax.data.readers.notation import mathml
from electramed_jax.data.readers.pubmed import pubmed_text

_LINE = "\x1e"  # between two lines; XML cannot contain it
_CITED = "\ufdd0"  # in place of a citation by number; a noncharacter

_BLOCKS = {
    "p",
    "list",
    "list-item",
    "disp-quote",
    "def-list",
    "def-item",
    "verse-group",
    "verse-line",
    "statement",
    "speech",
    "boxed-text",
    "title",
    "sec",
    "array",
    "tr",
    "preformat",
    "code",
}
_OMITTED = {
    "fig",
    "fig-group",
    "table-wrap",
    "table-wrap-group",
    "table",
    "supplementary-material",
    "media",
    "graphic",
    "inline-graphic",
    "object-id",
    "fn",
    "fn-group",
    "ref-list",
    "contrib-group",
    "permissions",
    "label",
    "alt-text",
    "long-desc",
    "attrib",
    "index-term",
    "indexed-term",
    "floats-group",
    "chem-struct-wrap",
    "journal-meta",
    "aff",
    "author-notes",
    "processing-meta",
}
_OMITTED_REFERENCES = {"fn", "aff", "corresp", "author-notes", "table-fn", "contrib"}
_NUMBERS = re.compile(r"[\[(]?\s*\d[\d\s,;–‐-]*[\])]?\s*")
_NOT_NUMBERS = re.compile(r"[\s,;–‐*†-]*")
_CITED_LIST = rf"{_CITED}(?:(?:[\s,;–‐-]|and|&)*{_CITED})*"
# A list of citations, in brackets of its own or not. The pattern begins with characters, which keeps the search fast.
_CITATIONS = re.compile(
    rf"[\[(](?:\s|see|e\.g\.,?|refs?\.?|reviewed in)*{_CITED_LIST}\s*[\])]|{_CITED_LIST}", re.IGNORECASE
)
_AFTER_CITATION = tuple(" .,;:)]\t\r\n" + _LINE)
_TEX_BODY = re.compile(r"\\begin\{document\}(.*?)\\end\{document\}", re.DOTALL)
_TEX_DOLLARS = re.compile(r"^\s*\$+|\$+\s*$")


def lines(element: Any | None) -> list[str]:
    """Returns the lines of text inside an element; none for None."""
    if element is None:
        return []
    if not len(element):
        line = " ".join((element.text or "").split())
        return [line] if line else []
    pieces: list[str] = []
    collect(element, pieces)
    return _split("".join(pieces))


def block_lines(element: Any) -> list[str]:
    """Returns the lines of an element that is itself a block, such as a list or a displayed formula."""
    pieces: list[str] = []
    handler = _HANDLERS.get(element.tag, collect)
    handler(element, pieces)
    return _split("".join(pieces))


def line(element: Any | None) -> str:
    """Returns the text inside an element as one line; "" for None."""
    return " ".join(lines(element))


def collect(element: Any, pieces: list[str]) -> None:
    """Appends the text inside an element to `pieces`."""
    if element.text:
        pieces.append(element.text)
    for child in element:
        tag = child.tag
        handler = _HANDLERS.get(tag)
        if handler is not None:
            handler(child, pieces)
        elif tag.__class__ is str:
            if tag[0] == "{" and tag.endswith("}math"):
                pieces.append(mathml.to_text(child) or " ")
            else:
                collect(child, pieces)
        if child.tail:
            pieces.append(child.tail)


def _split(text: str) -> list[str]:
    """Removes the citations from collected text and returns its lines."""
    if _CITED in text:
        text = _remove_citations(text)
    return [line for line in (" ".join(part.split()) for part in text.split(_LINE)) if line]


def _remove_citations(text: str) -> str:
    """Removes the citations, with their brackets, and the space before it where a space or a mark follows."""
    kept, *others = _CITATIONS.sub(_CITED, text).split(_CITED)
    pieces = [kept]
    for piece in others:
        if not piece or piece.startswith(_AFTER_CITATION):
            pieces[-1] = pieces[-1].rstrip(" \t\r\n")
        pieces.append(piece)
    return "".join(pieces)


def _omit(_element: Any, _pieces: list[str]) -> None:
    """Leaves the element out."""


def _add_block(element: Any, pieces: list[str]) -> None:
    pieces.append(_LINE)
    collect(element, pieces)
    pieces.append(_LINE)


def _add_space(_element: Any, pieces: list[str]) -> None:
    pieces.append(" ")


def _add_before(separator: str) -> Callable[[Any, list[str]], None]:
    def add(element: Any, pieces: list[str]) -> None:
        collect(element, pieces)
        pieces.append(separator)

    return add


def _add_reference(element: Any, pieces: list[str]) -> None:
    kind = element.get("ref-type")
    if kind in _OMITTED_REFERENCES:
        return
    if kind != "bibr":
        collect(element, pieces)
        return
    inner: list[str] = []
    collect(element, inner)
    text = "".join(inner)
    if _CITED in text or not text.strip() or _NUMBERS.fullmatch(text):
        pieces.append(_CITED)
    else:
        pieces += inner


def _add_script(mark: str) -> Callable[[Any, list[str]], None]:
    def add(element: Any, pieces: list[str]) -> None:
        inner: list[str] = []
        collect(element, inner)
        script = "".join(inner)
        if _CITED in script and _NOT_NUMBERS.fullmatch(script.replace(_CITED, "")):
            pieces.append(_CITED)
        else:
            pubmed_text.add_script(pieces, mark, script, element.tail or "")

    return add


def _add_formula(element: Any, pieces: list[str]) -> None:
    text = _formula(element)
    is_displayed = element.tag.startswith("disp-")
    pieces.append(f"{_LINE}{text}{_LINE}" if is_displayed else text)


def _formula(element: Any) -> str:
    """Returns the text of a formula: MathML if there is any, else TeX, else its own text."""
    for math in element.iter("{*}math"):
        if text := mathml.to_text(math):
            return text
    for tex in element.iter("tex-math"):
        if text := _tex(tex):
            return text
    inner: list[str] = []
    collect(element, inner)
    return " ".join("".join(inner).split())


def _add_math(element: Any, pieces: list[str]) -> None:
    pieces.append(mathml.to_text(element) or " ")


def _add_tex(element: Any, pieces: list[str]) -> None:
    pieces.append(_tex(element))


def _tex(element: Any) -> str:
    """Returns the formula of a TeX document, without preamble and dollar signs."""
    text = "".join(element.itertext())
    body = _TEX_BODY.search(text)
    return " ".join(_TEX_DOLLARS.sub("", body[1].strip() if body else text).split())


def _add_alternatives(element: Any, pieces: list[str]) -> None:
    if element.find(".//tex-math") is not None or element.find(".//{*}math") is not None:
        pieces.append(_formula(element))
    elif len(element):
        collect(element, pieces)


_HANDLERS: dict[Any, Callable[[Any, list[str]], None]] = {
    **dict.fromkeys(_OMITTED, _omit),
    **dict.fromkeys(_BLOCKS, _add_block),
    "sup": _add_script("^"),
    "sub": _add_script("_"),
    "xref": _add_reference,
    "break": _add_space,
    "inline-formula": _add_formula,
    "disp-formula": _add_formula,
    "disp-formula-group": _add_block,
    "math": _add_math,
    "tex-math": _add_tex,
    "alternatives": _add_alternatives,
    "td": _add_before(" "),
    "term": _add_before(": "),
}
