"""The text of a PubMed element as one line, and what in it the authors did not write.

Inline markup (`<i> <b> <u> <sup> <sub>`) is taken off and its text kept: CO<sub>2</sub> is CO2,
CD4<sup>+</sup> is CD4+. Only where two numbers would run together they are kept apart by the sign
one would type: 10<sup>-3</sup> is 10^-3, 2.4×10<sup>6</sup> is 2.4×10^6. A superscript that cites
(`shown before<sup>3,4</sup>.`) is left out. Formulas in MathML are written in a line (`mathml`).

Some publishers' markup and entities arrive escaped (`&lt;i&gt;`, `&amp;#x3b1;`) and are treated alike.
"""

from __future__ import annotations

import html.entities
import re
from typing import Any

from electramed_jax.data.readers import mathml

_MARKS = {"sup": "^", "sub": "_"}
_SIGNED_NUMBER = re.compile(r"\s*[+\-−–]?\d")
_REFERENCES = re.compile(r"\d{1,2}(?:\s?[,–-]\s?\d{1,2})*")
_WORD_THAT_CITES = re.compile(r"""(?:[a-z]{4}|[a-z]{2}["'”’)])\s?$""")
# sigma70, serine473, carbon13, calcium45: words that bear a number of their own.
_NUMBERED_WORD = re.compile(
    r"(?:lpha|eta|mma|lta|silon|appa|mbda|gma|mega|ine|acid|ate|phan|gen|bon|ium|residues?)\s?$"
)
_CLAUSE_ENDS = re.compile(r"\s?[.,;:)]|\s+[a-z]|\s*$")
_ESCAPED_TAG = re.compile(
    r"<(sub|sup|i|b|u|em|strong|italic|bold|small|pre|tt)>((?:(?!<\1>).)*?)</\1>", re.IGNORECASE | re.DOTALL
)
_DEPTH_OF_ESCAPED_TAGS = 3
_ESCAPED_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z]\w{1,30}));")

_TRUNCATED = re.compile(r"\s*\(?\bABSTRACT TRUNCATED(?: AT \d+ WORDS)?\b\)?\.?")
_NOTICE_CHARS = 250
_HINT_OF_NOTICE = re.compile(r"©|\([cC]\)|opyright|ights [Rr]eserved|Published by|Database Record")
_NOTICE = re.compile(
    r"""(?:^|(?<=[.?!)\]"”])\s*)                     # where a sentence begins,
    (?:
      (?:(?:[A-Z][A-Za-z]*[.;,]?\s){1,6}             # perhaps the journal, volume and pages,
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
    .{0,200}\Z                                       # and the abstract's end soon after
    """,
    re.VERBOSE | re.DOTALL,
)


def line(element: Any | None) -> str:
    """All text inside an element in one line; "" where there is no element."""
    if element is None:
        return ""
    if len(element):
        pieces: list[str] = []
        _gather(element, pieces)
        text = "".join(pieces)
    else:
        text = element.text or ""
    if "&" in text:
        text = _ESCAPED_ENTITY.sub(_unescaped, text)
    if "</" in text:
        text = _without_escaped_tags(text)
    return " ".join(text.split())


def without_truncation_mark(text: str) -> str:
    """Without NLM's "(ABSTRACT TRUNCATED AT 250 WORDS)"."""
    return _TRUNCATED.sub("", text).strip() if "ABSTRACT TRUNCATED" in text else text


def without_copyright(text: str) -> str:
    """Without the publisher's notice in its last 250 characters, if one begins there as a sentence:
    "© 2019 The Authors. Published by ...", "Copyright (c) 1999 ...", "All rights reserved"."""
    if not _HINT_OF_NOTICE.search(text, max(0, len(text) - _NOTICE_CHARS)):
        return text
    notice = _NOTICE.search(text, max(0, len(text) - 2 * _NOTICE_CHARS))
    return text[: notice.start()].rstrip() if notice else text


def _gather(element: Any, pieces: list[str]) -> None:
    """Adds the text inside an element to `pieces`, none of them empty."""
    if element.text:
        pieces.append(element.text)
    for child in element:
        name = mathml.local_name(child)
        if name in _MARKS:
            script: list[str] = []
            _gather(child, script)
            _add_script(pieces, _MARKS[name], "".join(script), child.tail or "")
        elif name == "math":
            pieces.append(mathml.text(child) or " ")
        elif name == "DispFormula":
            pieces.append(" ")
            _gather(child, pieces)
            pieces.append(" ")
        else:
            _gather(child, pieces)
        if child.tail:
            pieces.append(child.tail)


def _add_script(pieces: list[str], mark: str, script: str, tail: str) -> None:
    before = pieces[-1] if pieces else ""
    if mark == "^" and _cites(before, script, tail):
        return
    if script:
        pieces.append(f"{_between(before, mark, script)}{script}")


def _between(before: str, mark: str, script: str) -> str:
    """The mark where a number would otherwise run into the number before it."""
    return mark if before[-1:].isdigit() and _SIGNED_NUMBER.match(script) else ""


def _cites(before: str, script: str, tail: str) -> bool:
    """Whether a superscript is a list of references: after a word, before more words or the end of a
    clause. A single 2 or 3 may be a power (`width<sup>2</sup>`) and is none."""
    numbers, word = script.strip(), before[-12:]
    if numbers in ("2", "3") or not _REFERENCES.fullmatch(numbers) or not _CLAUSE_ENDS.match(tail):
        return False
    return bool(_WORD_THAT_CITES.search(word)) and not _NUMBERED_WORD.search(word)


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return html.entities.html5.get(f"{match[1]};", match[0])
    return html.unescape(match[0])


def _without_escaped_tags(text: str) -> str:
    def bare(match: re.Match[str]) -> str:
        before = match.string[max(0, match.start() - 1) : match.start()]
        return _between(before, _MARKS.get(match[1].lower(), ""), match[2]) + match[2]

    for _ in range(_DEPTH_OF_ESCAPED_TAGS):
        text = _ESCAPED_TAG.sub(bare, text)
    return text
