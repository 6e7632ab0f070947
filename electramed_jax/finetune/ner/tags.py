"""Tag sequences and the entities they stand for.

Corpora mark entities in several schemes, and mixing them up loses entities without a word:

    IOB2     every entity begins with B-
    IOB1     I- begins an entity too; B- only where one follows another of its type directly
    scibert  SciBERT's BC5CDR: a single word is a lone I-, several are B- I- ...
    BIOES    B- I- E-, and S- for a single word; BILOU spells E and S as L and U

`decode` reads all of them the way conlleval, and seqeval by default, do. What a scheme cannot say stays
unsaid: under `scibert` and `IOB1`, I- after I- of the same type goes on with the entity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
SCHEMES = ("IOB2", "IOB1", "scibert", "BIOES", "BILOU")
_PREFIXES = "BIESLU"
_BEGINS, _ENDS = "BSU", "ESLU"
_TOLERATED = 0.02  # of the entities may break the scheme: slips, and neighbours that run together (1.3 % of BC5CDR)


class Entity(NamedTuple):
    """Words start .. stop-1 are an entity of this type ("" where the tags name none)."""

    start: int
    stop: int
    type: str


def split_tag(tag: str) -> tuple[str, str]:
    """("B", "Disease") of "B-Disease"; the prefix is "" for a tag of no scheme known here."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, kind = tag.partition("-")
    return (prefix if prefix and len(prefix) == 1 and prefix in _PREFIXES else ""), kind


def decode(tags: Sequence[str]) -> list[Entity]:
    """The entities of a sentence, in order; equal to seqeval's default `get_entities`."""
    entities, start = [], 0
    before, kind_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        inside = before != OUTSIDE
        goes_on = inside and prefix != OUTSIDE and kind == kind_before and before not in _ENDS and prefix not in _BEGINS
        if inside and not goes_on:
            entities.append(Entity(start, place, kind_before))
        if prefix != OUTSIDE and not goes_on:
            start = place
        before, kind_before = prefix, kind
    return entities


def encode(entities: Iterable[Entity], length: int) -> list[str]:
    """IOB2 tags of `length` words; the entities must not overlap."""
    tags = [OUTSIDE] * length
    for start, stop, kind in entities:
        assert tags[start:stop] == [OUTSIDE] * (stop - start), "entities overlap"
        suffix = f"-{kind}" if kind else ""
        tags[start:stop] = [f"B{suffix}", *[f"I{suffix}"] * (stop - start - 1)]
    return tags


@dataclasses.dataclass(frozen=True)
class DetectedScheme:
    """The scheme of a corpus, and how many of its entities are not as the scheme has them."""

    scheme: str
    entities: int
    irregular: int


def detect_scheme(sentences: Sequence[Sequence[str]]) -> DetectedScheme:
    """Names the scheme that the fewest entities break; of equals, the first of `SCHEMES`."""
    broken = {scheme: len(irregular_entities(scheme, sentences)) for scheme in SCHEMES}
    scheme = min(SCHEMES, key=lambda name: broken[name])
    return DetectedScheme(scheme, sum(len(decode(tags)) for tags in sentences), broken[scheme])


def irregular_entities(scheme: str, sentences: Sequence[Sequence[str]]) -> list[tuple[int, Entity]]:
    """(number of its sentence, entity) of those that are not as the scheme has them."""
    found = []
    for number, tags in enumerate(sentences):
        before = Entity(-1, -1, "")
        for entity in decode(tags):
            adjacent = entity.start == before.stop and entity.type == before.type
            prefixes = "".join(split_tag(tag)[0] for tag in tags[entity.start : entity.stop])
            if prefixes != _regular(scheme, len(prefixes), adjacent):
                found.append((number, entity))
            before = entity
    return found


def is_regular(found: DetectedScheme) -> bool:
    """Whether what breaks the scheme is few enough to be slips of the corpus."""
    return found.irregular <= _TOLERATED * max(1, found.entities)


def _regular(scheme: str, length: int, adjacent: bool) -> str:
    """The prefixes of an entity of `length` words; `adjacent`: one of its type ends just before it."""
    if scheme in ("BIOES", "BILOU"):
        single, last = ("S", "E") if scheme == "BIOES" else ("U", "L")
        return single if length == 1 else "B" + "I" * (length - 2) + last
    if scheme == "IOB1":
        return ("B" if adjacent else "I") + "I" * (length - 1)
    if scheme == "scibert" and length == 1 and not adjacent:
        return "I"
    return "B" + "I" * (length - 1)
