"""MathML as one line of text: the formula as it would be typed, `x_i^2`, `a/(b+c)`, `√n`.

Only what a reader sees is taken; an annotation (a copy of the formula in TeX) is not.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

_TOKENS = {"mi", "mn", "mo", "ms", "mtext"}
_UNSEEN = {"annotation-xml", "mphantom"}
_SCRIPTS = {"msub": "_", "munder": "_", "msup": "^", "mover": "^", "msubsup": "_^", "munderover": "_^"}
_SPACED = {"mspace", "mtd", "mtr", "mlabeledtr", "mtable"}
_INVISIBLE = dict.fromkeys(range(0x2061, 0x2065))  # function application, invisible times, ...
_LAST_WORD = re.compile(r"[^\W\d_]+$|\d+$")
_FIRST_WORD = re.compile(r"[^\W\d_]+|\d+")
_ONE_TERM = re.compile(r"\w+(?:[.,]\w+)*|\([^()]*\)|.?")


def text(math: Any) -> str:
    """The line of a `math` element, with or without its namespace; its `alttext` where it is empty."""
    return " ".join((_line(math) or math.get("alttext") or "").split())


def local_name(element: Any) -> str:
    """The name without a namespace or an undeclared prefix."""
    return element.tag.rpartition("}")[2].rpartition(":")[2]


def _line(element: Any) -> str:
    name = local_name(element)
    if name in _TOKENS:
        return "".join(element.itertext()).translate(_INVISIBLE) if name == "mtext" else _token(element)
    if name in _UNSEEN:
        return ""
    parts = [_line(child) for child in element]
    if name in _SCRIPTS and parts:
        marks = zip(_SCRIPTS[name], parts[1:], strict=False)
        return _term(parts[0]) + "".join(_script(mark, part) for mark, part in marks)
    if name == "mfrac" and len(parts) == 2:
        return f"{_term(parts[0])}/{_term(parts[1])}"
    if name == "msqrt":
        return "√" + _term(_joined(parts))
    if name == "mroot" and len(parts) == 2:
        return f"{_term(parts[0])}^(1/{_term(parts[1])})"
    if name == "mmultiscripts":
        return _with_scripts_around(element, parts)
    if name == "mfenced":
        return element.get("open", "(") + ",".join(parts) + element.get("close", ")")
    line = _joined(parts)
    return f" {line} " if name in _SPACED else line


def _token(element: Any) -> str:
    return "".join("".join(element.itertext()).translate(_INVISIBLE).split())


def _script(mark: str, script: str) -> str:
    """An index or exponent; an accent or a charge alone needs no mark."""
    return f"{mark}{_term(script)}" if any(letter.isalnum() for letter in script) else script


def _term(line: str) -> str:
    """In parentheses unless it is one number, word or sign, or stands in some already."""
    return line if _ONE_TERM.fullmatch(line) else f"({line})"


def _joined(parts: list[str]) -> str:
    """One after the other, words and numbers kept apart; `xy` stays the product it is."""
    parts = [part for part in parts if part]
    line = parts[:1]
    for before, after in itertools.pairwise(parts):
        last, first = _LAST_WORD.search(before), _FIRST_WORD.match(after)
        alike = last and first and last[0].isdigit() == first[0].isdigit()
        if alike and (last[0].isdigit() or len(last[0]) + len(first[0]) > 2):
            line.append(" ")
        line.append(after)
    return "".join(line)


def _with_scripts_around(element: Any, parts: list[str]) -> str:
    """base (sub sup)* mprescripts (sub sup)*; those in front stand bare, as in `14C`."""
    names = [local_name(child) for child in element]
    split = names.index("mprescripts") if "mprescripts" in names else len(names)
    behind = (_script(mark, part) for mark, part in zip(itertools.cycle("_^"), parts[1:split], strict=False))
    return "".join(parts[split:]) + "".join(parts[:1]) + "".join(behind)
