"""MathML to one line of text: the formula as it would be typed, `x_i^2`, `a/(b+c)`, `√n`.

Invisible elements, such as an annotation (a copy of the formula in TeX), are left out.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

_TOKENS = {"mi", "mn", "mo", "ms", "mtext"}
_HIDDEN = {"annotation-xml", "mphantom"}
_SCRIPTS = {"msub": "_", "munder": "_", "msup": "^", "mover": "^", "msubsup": "_^", "munderover": "_^"}
_SPACED = {"mspace", "mtd", "mtr", "mlabeledtr", "mtable"}
_INVISIBLE = dict.fromkeys(range(0x2061, 0x2065))  # function application, invisible times, ...
_LAST_WORD = re.compile(r"[^\W\d_]+$|\d+$")
_FIRST_WORD = re.compile(r"[^\W\d_]+|\d+")
_ONE_TERM = re.compile(r"\w+(?:[.,]\w+)*|\([^()]*\)|.?")


def to_text(math: Any) -> str:
    """Converts a `math` element, with or without namespace, to one line; an empty one to its `alttext`."""
    return " ".join((_convert(math) or math.get("alttext") or "").split())


def local_name(element: Any) -> str:
    """Returns the name of an element without its namespace or undeclared prefix."""
    return element.tag.rpartition("}")[2].rpartition(":")[2]


def _convert(element: Any) -> str:
    name = local_name(element)
    if name in _TOKENS:
        return "".join(element.itertext()).translate(_INVISIBLE) if name == "mtext" else _token(element)
    if name in _HIDDEN:
        return ""
    parts = [_convert(child) for child in element]
    if name in _SCRIPTS and parts:
        marks = zip(_SCRIPTS[name], parts[1:], strict=False)
        return _term(parts[0]) + "".join(_script(mark, part) for mark, part in marks)
    if name == "mfrac" and len(parts) == 2:
        return f"{_term(parts[0])}/{_term(parts[1])}"
    if name == "msqrt":
        return "√" + _term(_join(parts))
    if name == "mroot" and len(parts) == 2:
        return f"{_term(parts[0])}^(1/{_term(parts[1])})"
    if name == "mmultiscripts":
        return _multiscripts(element, parts)
    if name == "mfenced":
        return element.get("open", "(") + ",".join(parts) + element.get("close", ")")
    line = _join(parts)
    return f" {line} " if name in _SPACED else line


def _token(element: Any) -> str:
    return "".join("".join(element.itertext()).translate(_INVISIBLE).split())


def _script(mark: str, script: str) -> str:
    """Formats an index or exponent; an accent or a charge has no letter or digit and gets no mark."""
    return f"{mark}{_term(script)}" if any(letter.isalnum() for letter in script) else script


def _term(line: str) -> str:
    """Adds parentheses, except around one number, word or sign and around what has some already."""
    return line if _ONE_TERM.fullmatch(line) else f"({line})"


def _join(parts: list[str]) -> str:
    """Concatenates; a space separates two words or two numbers, but not two single letters (`xy` is a product)."""
    parts = [part for part in parts if part]
    line = parts[:1]
    for before, after in itertools.pairwise(parts):
        last, first = _LAST_WORD.search(before), _FIRST_WORD.match(after)
        if (
            last
            and first
            and last[0].isdigit() == first[0].isdigit()
            and (last[0].isdigit() or len(last[0]) + len(first[0]) > 2)
        ):
            line.append(" ")
        line.append(after)
    return "".join(line)


def _multiscripts(element: Any, parts: list[str]) -> str:
    """Formats `base (sub sup)* mprescripts (sub sup)*`; prescripts get no mark, as in `14C`."""
    names = [local_name(child) for child in element]
    split = names.index("mprescripts") if "mprescripts" in names else len(names)
    postscripts = (_script(mark, part) for mark, part in zip(itertools.cycle("_^"), parts[1:split], strict=False))
    return "".join(parts[split:]) + "".join(parts[:1]) + "".join(postscripts)
