"""Text of a PubMed element as one line.

Inline markup (`<i> <b> <u> <sup> <sub>`) is removed and its text kept: CO<sub>2</sub> becomes CO2, CD4<sup>+</sup>
becomes CD4+. Two adjacent numbers are separated by `^` or `_`: 10<sup>-3</sup> becomes 10^-3, 2.4×10<sup>6</sup>
becomes 2.4×10^6. Superscript references (`shown before<sup>3,4</sup>.`) are removed. MathML formulas become one line
(`mathml`). Block tags, such as `<p>`, `<br/>`, list items and table cells, separate words.

Markup and entities that a publisher delivered escaped (`&lt;i&gt;`, `&amp;#x3b1;`) are handled in the same way.
"""

from __future__ import annotations

import html.entities
import re
from typing import Any

from electramed_jax.data.readers.notation import mathml

_MARKS = {"sup": "^", "sub": "_"}
_SIGNED_NUMBER = re.compile(r"\s*[+\-−–]?\d")
_BLOCKS = frozenset(
    """
    address blockquote boxed-text br break caption dd def div dl dt fig figure h1 h2 h3 h4 h5 h6 hr label legend li list
    list-item ol p pre sec section statement table table-wrap tbody td tfoot th thead title tr ul DispFormula
    """.split()
)
_REFERENCES = re.compile(r"\d{1,2}(?:\s?[,–-]\s?\d{1,2})*")
_CITING_WORD = re.compile(r"""(?:[a-z]{4}|[a-z]{2}["'”’)])\s?$""")
# Words that include a number: isotopes, amino acids, Greek letters, parts of genes, families of molecules.
_NUMBERED_WORD = re.compile(
    r"""(?:
      \b(?:hydrogen|helium|lithium|beryllium|boron|carbon|nitrogen|oxygen|fluorine|fluor|neon|sodium|magnesium
        |alumini?um|silicon|phosphor(?:o?us)?|sul(?:f|ph)ur|chlorine|argon|potassium|calcium|scandium|titanium|vanadium
        |chromium|chromate|manganese|iron|cobalt|nickel|copper|zinc|gallium|germanium|arsenic|selenium|bromine|krypton
        |rubidium|strontium|yttrium|zirconium|niobium|molybdenum|technetium|pertechnetate|ruthenium|xenon|iodine|iodide
        |c(?:a)?esium|indium|radium|uranium|tritium)
      | (?:alpha|beta|gamma|delta|epsilon|zeta|theta|iota|kappa|lambda|sigma|omega|upsilon|\beta)
      | \b(?:alan|argin|asparag|cyste|glutam|glyc|histid|isoleuc|leuc|lys|methion|phenylalan|prol|ser|threon|tyros
        |val)ine
      | \b(?:tryptophan|aspart(?:ate|ic\sacid)|glutam(?:ate|ic\sacid)|residues?|positions?|amino\sacids?)
      | \b(?:exon|intron|codon|nucleotide|base|chromosome|allele|helix|domain|mutation|variant|isoform|segment
        |subunit)s?
      | \b(?:interleukin|interferon|chemokine|caspase|cyclin|claudin|connexin|galectin|integrin|keratin|cytokeratin
        |aquaporin|laminin|histone|complexin|synapsin|syntaxin|semaphorin|angiopoietin|angiotensin|endothelin|orexin
        |prostaglandin|leukotriene|vitamin|coenzyme|cytochrome|apolipoprotein|glypican|sirtuin|septin|peroxiredoxin
        |receptor|factor|kinase|ligand|subtype|serotype|genotype|grade|day|week|month|phase|stage|step)
    )\s?$""",
    re.VERBOSE,
)
_CLAUSE_ENDS = re.compile(r"\s?[.,;:)]|\s+[a-z]|\s*$")
_ESCAPED_TAG = re.compile(
    r"<(sub|sup|i|b|u|em|strong|italic|bold|small|pre|tt)>((?:(?!<\1>).)*?)</\1>", re.IGNORECASE | re.DOTALL
)
_MAX_TAG_DEPTH = 3
_ESCAPED_BLOCK = re.compile(r"</?(?:p|li|ul|ol|td|th|tr|div|h[1-6])>|<br\s?/?>", re.IGNORECASE)
_ESCAPED_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z]\w{1,30}));")

_TRUNCATED = re.compile(r"\s*\(?\bABSTRACT TRUNCATED(?: AT \d+ WORDS)?\b\)?\.?")


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
    if "</" in text or "<br" in text:
        text = _strip_escaped_tags(text)
    return " ".join(text.split())


def strip_truncation_mark(text: str) -> str:
    """Removes NLM's "(ABSTRACT TRUNCATED AT 250 WORDS)"."""
    return _TRUNCATED.sub("", text).strip() if "ABSTRACT TRUNCATED" in text else text


def _collect(element: Any, pieces: list[str]) -> None:
    """Appends the text inside an element to `pieces`, without empty strings."""
    if element.text:
        pieces.append(element.text)
    for child in element:
        name = mathml.local_name(child)
        if name in _MARKS:
            script: list[str] = []
            _collect(child, script)
            add_script(pieces, _MARKS[name], "".join(script), child.tail or "")
        elif name == "math":
            pieces.append(mathml.to_text(child) or " ")
        elif name in _BLOCKS:
            pieces.append(" ")
            _collect(child, pieces)
            pieces.append(" ")
        else:
            _collect(child, pieces)
        if child.tail:
            pieces.append(child.tail)


def add_script(pieces: list[str], mark: str, script: str, tail: str) -> None:
    """Appends a superscript (mark "^") or subscript ("_") to `pieces`, with the text `tail` after it in view."""
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

    A single 2 or 3 may be a power (`width<sup>2</sup>`) and is not a reference. A list of numbers is one after any
    word.
    """
    numbers, word = script.strip(), before[-24:]
    if numbers in ("2", "3") or not _REFERENCES.fullmatch(numbers) or not _CLAUSE_ENDS.match(tail):
        return False
    return bool(_CITING_WORD.search(word)) and not (numbers.isdigit() and _NUMBERED_WORD.search(word))


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
    return _ESCAPED_BLOCK.sub(" ", text)
