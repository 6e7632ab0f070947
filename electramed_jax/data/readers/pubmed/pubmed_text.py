"""Text of a PubMed element as one line, and removal of notices that are not by the authors.

Inline markup (`<i> <b> <u> <sup> <sub>`) is removed and its text kept: CO<sub>2</sub> becomes CO2, CD4<sup>+</sup>
becomes CD4+. Two adjacent numbers are separated by `^` or `_`: 10<sup>-3</sup> becomes 10^-3, 2.4×10<sup>6</sup>
becomes 2.4×10^6. Superscript references (`shown before<sup>3,4</sup>.`) are removed. MathML formulas become one line
(`mathml`).

Markup and entities that a publisher delivered escaped (`&lt;i&gt;`, `&amp;#x3b1;`) are handled in the same way.
"""

from __future__ import annotations

import html.entities
import re
from typing import Any

from electramed_jax.data.readers import mathml

_MARKS = {"sup": "^", "sub": "_"}
_SIGNED_NUMBER = re.compile(r"\s*[+\-−–]?\d")
_REFERENCES = re.compile(r"\d{1,2}(?:\s?[,–-]\s?\d{1,2})*")
_CITING_WORD = re.compile(r"""(?:[a-z]{4}|[a-z]{2}["'”’)])\s?$""")
# sigma70, serine473, carbon13, calcium45: words that include a number.
_NUMBERED_WORD = re.compile(
    r"(?:lpha|eta|mma|lta|silon|appa|mbda|gma|mega|ine|acid|ate|phan|gen|bon|ium|residues?)\s?$"
)
_CLAUSE_ENDS = re.compile(r"\s?[.,;:)]|\s+[a-z]|\s*$")
_ESCAPED_TAG = re.compile(
    r"<(sub|sup|i|b|u|em|strong|italic|bold|small|pre|tt)>((?:(?!<\1>).)*?)</\1>", re.IGNORECASE | re.DOTALL
)
_MAX_TAG_DEPTH = 3
_ESCAPED_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z]\w{1,30}));")

_TRUNCATED = re.compile(r"\s*\(?\bABSTRACT TRUNCATED(?: AT \d+ WORDS)?\b\)?\.?")
_NOTICE_CHARS = 250
_NOTICE_HINT = re.compile(r"©|\([cC]\)|opyright|ights [Rr]eserved|Published by|Database Record")
_NOTICE = re.compile(
    r"""(?:^|(?<=[.?!)\]"”])\s*)                     # at the start of a sentence
    (?:
      (?:(?:[A-Z][A-Za-z]*[.;,]?\s){1,6}             # optional: journal, volume and pages
         (?:\d[\d;:()\-–,\seES]*\.\s*)?)?
      (?: ©
        | \([cC]\)\s?(?:[Cc]opyright|(?:19|20)\d\d,?\s(?:by\s|the\s)?[A-Z])
        | (?:Crown\s)?[Cc]opyright,?\s?(?:Â?©|\([cC]\)|(?:19|20)\d\d|by\s[A-Z]|[Tt]he\s[A-Z])
      )
      | This\sarticle\sis\sprotected\sby\scopyright
      | Published\sby\s[A-Z]
      | \(?Psyc(?:INFO|Info)\sDatabase\sRecord
      | All\s[Rr]ights\s[Rr]eserved
      | (?:19|20)\d\d\s[A-Z][^.]{1,60}\.\s*All\s[Rr]ights\s[Rr]eserved
    )
    .{0,200}\Z                                       # near the end of the abstract
    """,
    re.VERBOSE | re.DOTALL,
)


def element_text(element: Any | None) -> str:
    """Returns all text inside an element as one line; "" for None."""
    if element is None:
        return ""
    if len(element):
        pieces: list[str] = []
        _collect(element, pieces)
        text = "".join(pieces)
    else:
        text = element.text or ""
    if "&" in text:
        text = _ESCAPED_ENTITY.sub(_unescape, text)
    if "</" in text:
        text = _strip_escaped_tags(text)
    return " ".join(text.split())


def strip_truncation_mark(text: str) -> str:
    """Removes NLM's "(ABSTRACT TRUNCATED AT 250 WORDS)"."""
    return _TRUNCATED.sub("", text).strip() if "ABSTRACT TRUNCATED" in text else text


def strip_copyright(text: str) -> str:
    """Removes a publisher's notice that starts as a sentence near the end (hint in the last 250 characters).

    Examples: "© 2019 The Authors. Published by ...", "Copyright (c) 1999 ...", "All rights reserved".
    """
    if not _NOTICE_HINT.search(text, max(0, len(text) - _NOTICE_CHARS)):
        return text
    notice = _NOTICE.search(text, max(0, len(text) - 2 * _NOTICE_CHARS))
    return text[: notice.start()].rstrip() if notice else text


def _collect(element: Any, pieces: list[str]) -> None:
    """Appends the text inside an element to `pieces`, without empty strings."""
    if element.text:
        pieces.append(element.text)
    for child in element:
        name = mathml.local_name(child)
        if name in _MARKS:
            script: list[str] = []
            _collect(child, script)
            _add_script(pieces, _MARKS[name], "".join(script), child.tail or "")
        elif name == "math":
            pieces.append(mathml.to_text(child) or " ")
        elif name == "DispFormula":
            pieces.append(" ")
            _collect(child, pieces)
            pieces.append(" ")
        else:
            _collect(child, pieces)
        if child.tail:
            pieces.append(child.tail)


def _add_script(pieces: list[str], mark: str, script: str, tail: str) -> None:
    before = pieces[-1] if pieces else ""
    if mark == "^" and _is_citation(before, script, tail):
        return
    if script:
        pieces.append(f"{_separator(before, mark, script)}{script}")


def _separator(before: str, mark: str, script: str) -> str:
    """Returns the mark if a number follows a number, otherwise ""."""
    return mark if before[-1:].isdigit() and _SIGNED_NUMBER.match(script) else ""


def _is_citation(before: str, script: str, tail: str) -> bool:
    """Returns whether a superscript is a list of references: after a word, before a word or the end of a clause.

    A single 2 or 3 may be a power (`width<sup>2</sup>`) and is not a reference.
    """
    numbers, word = script.strip(), before[-12:]
    if numbers in ("2", "3") or not _REFERENCES.fullmatch(numbers) or not _CLAUSE_ENDS.match(tail):
        return False
    return bool(_CITING_WORD.search(word)) and not _NUMBERED_WORD.search(word)


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return html.entities.html5.get(f"{match[1]};", match[0])
    return html.unescape(match[0])


def _strip_escaped_tags(text: str) -> str:
    def strip(match: re.Match[str]) -> str:
        before = match.string[max(0, match.start() - 1) : match.start()]
        return _separator(before, _MARKS.get(match[1].lower(), ""), match[2]) + match[2]

    for _ in range(_MAX_TAG_DEPTH):
        text = _ESCAPED_TAG.sub(strip, text)
    return text
