"""Removes the publisher's notice from the end of an abstract, and nothing of the authors.

A notice is one or more sentences at the end ("© 2019 The Authors. Published by ...", "All rights reserved."). A
sentence belongs to it if all its lower-case words are words of notices; names, numbers and marks are free. So
"Published by Elsevier in 2003, the first guideline was followed" is a sentence of the authors: "guideline" and
"followed" are not words of notices. The notice starts at its first sentence with a sign of one: ©, "copyright", "rights
reserved", the name of a publisher.
"""

from __future__ import annotations

import re

_MAX_CHARS = 600  # of a notice
# Lower-case words of notices.
_WORDS = frozenset(
    """
    a an and are as at been behalf by for from has have held here in is it its no not of on or our out s so such that
    the their there these this to under upon was were which who with without
    all rights reserved copyright copyrights copyrighted protected ownership owned owner owners holder holders
    retain retained
    retains claim claims claimed original works work government employee employees official duties part domain public
    publication publications publish published publisher publishers publishing journal journals article articles
    abstract abstracts author authors author's authors' authored editor editors editorial company society association
    institute university press et al co llc ltd inc
    licence license licences licenses licensed licensee licensees licensor licensors
    exclusive exclusively non-exclusive nonexclusive
    assigned granted grant grants permission permissions permits permitted permit please email e-mail contact visit
    further information reprints
    open access distributed distribution terms conditions attribution creative commons unrestricted use uses used
    reproduction medium provided properly cited credited citation source sources noncommercial non-commercial commercial
    noderivs derivatives derivative purposes re-use reuse adaptation adaptations modifications made only any other
    database record version final reference first online print electronic epub ahead
    contributed reproduced reprinted c subject
    available supplemental supplementary material see related commentary editorial p pp page highlighted feature
    categorized
    de del der des di du e el für la le les los para por par und van von y
    todos derechos reservados publicado tous droits réservés publié alle rechte vorbehalten
    """.split()
)
_SIGN = re.compile(
    r"""©
    | \([cC]\)\s?(?:[Cc]opyright|(?:19|20)\d\d)
    | \b[Cc]opyright(?:ed)?\b | \bCOPYRIGHT\b
    | [Rr]ights\s[Rr]eserved | RIGHTS\sRESERVED
    | [Dd]erechos\sreservados | [Dd]roits\sréservés | Rechte\svorbehalten
    | ^Published\s(?:(?:online\s)?(?:in\s)?(?:19|20)\d\d|by\s|under\slicen[cs]e|on\sbehalf)
    | ^Publ(?:ished|ication)\.?\sby\s
    | \bPsyc(?:INFO|Info)\sDatabase\sRecord
    | ^(?:Inc|Ltd|LLC|GmbH|Limited)\.?$  # left of a notice that was cut elsewhere
    | \bCreative\sCommons\b | ^This\sis\san\sopen.access\sarticle
    | \bU\.?S\.?\sGovernment\s[Ww]ork | \bpublic\sdomain\b
    | ^(?:(?:19|20)\d\d,?\s)?(?:by\s|[Tt]he\s)?
      (?:[\w.&-]+\s){0,5}?(?:Elsevier|Wiley|Springer|Thieme|Karger|Blackwell|Lippincott|Informa|Liebert|BMJ|Munksgaard
        |Macmillan|Hindawi|Schattauer|Hogrefe|Saunders|Mosby|Verlag|Publishing|Publishers?|Publications?
        |(?:Academic|University|Humana|Rapamycin|Pergamon|Raven|Dove)\sPress|Taylor\s&\sFrancis|Wolters\sKluwer)\b
    """,
    re.VERBOSE,
)
# A journal before the sign, with volume and pages or abbreviated: part of the notice.
_REFERENCE = re.compile(r"\(?(?:[A-Z][A-Za-z]*[.;,:]?\s){1,6}\d[\d;:()\-–,\seES]*\)?\.?\s*|(?:[A-Z][a-z]*\.\s){2,6}")
_MAX_REFERENCE_PIECES = 6
_SENTENCE_START = re.compile(
    r"""^
    | (?<=[.?!)\]"”])(?<![ .(][A-Z]\.)(?<!\([cC]\))\s+(?=\S)  # not after an initial, as in U.S. Government, ...
    | (?<=[.?!)\]"”])\s*(?=©|\([cC]\)|Copyright|COPYRIGHT|Published\s|All\s[Rr]ights)  # ... except before a sign
    """,
    re.VERBOSE,
)
_WORD = re.compile(r"(?:https?://|www\.|[\w.-]+@)\S+|(?<![\w.@/])([a-zà-ÿ][\w'’-]*)")  # addresses are no words


def strip_notice(text: str) -> str:
    """Returns an abstract without the publisher's notice at its end."""
    if not _is_notice(text[max(text.rfind(". ", 0, -2), len(text) - _MAX_CHARS, 0) :]):
        return text  # most abstracts: a word of the last sentence decides
    tail = text[-_MAX_CHARS:]
    starts = [match.end() for match in _SENTENCE_START.finditer(tail)]
    if len(tail) < len(text) and starts[:1] == [0]:
        del starts[0]  # inside a sentence
    ends = [*starts[1:], len(tail)]
    cut = None
    for number in reversed(range(len(starts))):
        sentence = tail[starts[number] : ends[number]]
        if not _is_notice(sentence):
            break
        if _SIGN.search(sentence):
            cut = number
    if cut is None:
        return text
    first = max(0, cut - _MAX_REFERENCE_PIECES)
    cut = next((n for n in range(first, cut) if _REFERENCE.fullmatch(tail[starts[n] : starts[cut]])), cut)
    return text[: len(text) - len(tail) + starts[cut]].rstrip()


def _is_notice(sentence: str) -> bool:
    """Returns whether all lower-case words of a sentence are words of notices."""
    return all(match[1] is None or match[1].rstrip("'’-") in _WORDS for match in _WORD.finditer(sentence))
