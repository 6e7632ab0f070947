"""Tag sequences, tag schemes and entities.

Corpora mark entities in several schemes. Reading one as another loses entities silently:

    IOB2     every entity begins with B-
    IOB1     an entity begins with I-, or with B- if it directly follows another one of its type
    scibert  SciBERT's BC5CDR: a single word is I-, several words are B- I- ...
    BIOES    B- I- E-, and S- for a single word
    BILOU    B- I- L-, and U- for a single word

`decode` reads all of them like conlleval, and like seqeval by default. In `scibert` and `IOB1`, an I- after an I- of
the same type continues the entity.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

OUTSIDE = "O"
SCHEMES = ("IOB2", "IOB1", "scibert", "BIOES", "BILOU")
TAG = re.compile(r"O|[BIESLU](?:-\S.*)?")  # O, or a letter of a scheme alone or with a type after a hyphen
WANTED = "wanted O, or B-, I-, E-, S-, L- or U- and a type"
_PREFIXES = "BIESLU"
_BEGINS, _ENDS = "BSU", "ESLU"
_TOLERATED = (
    0.02  # fraction of entities that may break the scheme: annotation errors, and adjacent entities (1.3 % of BC5CDR)
)


class Entity(NamedTuple):
    """Words start .. stop-1 are an entity of this type; "" if the tags have no type."""

    start: int
    stop: int
    type: str


@functools.lru_cache(maxsize=4096)  # a corpus has few different tags
def split_tag(tag: str) -> tuple[str, str]:
    """Returns ("B", "Disease") for "B-Disease"; the prefix is "" if it is unknown."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, _, kind = tag.partition("-")
    return (prefix if prefix and len(prefix) == 1 and prefix in _PREFIXES else ""), kind


def join_tag(prefix: str, kind: str) -> str:
    """Returns "B-Disease" for ("B", "Disease"), and the prefix alone if there is no type."""
    return f"{prefix}-{kind}" if kind else prefix


def name_numbers(
    sentences: Sequence[Sequence[str]], labels: Sequence[str], reject: Callable[[str], NoReturn]
) -> Sequence[Sequence[str]]:
    """Returns the tags with names in place of numbers; tags that are not all numbers are returned as they are.

    Without names, 0 is O and each other number is a type, as in EBM-NLP, where 2 is "Sex". This is not assumed if the
    numbers could also mean O, B- and I- of each type, as in most data sets of Hugging Face.

    Args:
      labels: names of the numbers, from 0, such as O, B-Disease, I-Disease; a name without prefix is a type.
      reject: called with the reason if the numbers cannot be named.
    """
    if not all(tag.isdecimal() for of_sentence in sentences for tag in of_sentence):
        return sentences
    highest = max(int(tag) for of_sentence in sentences for tag in of_sentence)
    if labels:
        if highest >= len(labels):
            reject(f"has the tag {highest}, but config.ner.labels has {len(labels)} names; add the missing ones")
        names = [name if TAG.fullmatch(name) else f"I-{name}" for name in labels]
    else:
        if highest > 1 and _may_be_iob2(sentences):
            reject(
                f"its tags are numbers from 0 to {highest}; name them, in order, with "
                "--config.ner.labels=O,B-TYPE,I-TYPE, or --config.ner.labels=O,TYPE,TYPE if each number is a type"
            )
        names = [OUTSIDE, *(f"I-{number}" for number in range(1, highest + 1))]
    return [[names[int(tag)] for tag in of_sentence] for of_sentence in sentences]


def _may_be_iob2(sentences: Sequence[Sequence[str]]) -> bool:
    """Returns whether each even number from 2 follows itself or the odd number below, as an I- follows its B-."""
    return all(
        int(tag) in (0, int(before)) or int(tag) % 2 or int(tag) == int(before) + 1
        for of_sentence in sentences
        for before, tag in itertools.pairwise(["0", *of_sentence])
    )


def decode(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of a sentence, in order; equal to seqeval's default `get_entities`."""
    entities, start = [], 0
    if tags.count(OUTSIDE) == len(tags):  # most sentences
        return []
    before, kind_before = OUTSIDE, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        inside = before != OUTSIDE
        continues = (
            inside and prefix != OUTSIDE and kind == kind_before and before not in _ENDS and prefix not in _BEGINS
        )
        if inside and not continues:
            entities.append(Entity(start, place, kind_before))
        if prefix != OUTSIDE and not continues:
            start = place
        before, kind_before = prefix, kind
    return entities


def decode_strict(tags: Sequence[str]) -> list[Entity]:
    """Returns the entities of a sentence in IOB2 as seqeval does with mode="strict": only those that begin with B-.

    A tag that neither begins nor continues an entity is ignored.
    """
    entities, start, kind_before = [], -1, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = split_tag(tag)
        if start >= 0 and not (prefix == "I" and kind == kind_before):
            entities.append(Entity(start, place, kind_before))
            start = -1
        if prefix == "B":
            start, kind_before = place, kind
    return entities


def encode(entities: Iterable[Entity], length: int) -> list[str]:
    """Returns the IOB2 tags of `length` words; the entities must not overlap."""
    tags = [OUTSIDE] * length
    for start, stop, kind in entities:
        assert tags[start:stop] == [OUTSIDE] * (stop - start), "entities overlap"
        suffix = f"-{kind}" if kind else ""
        tags[start:stop] = [f"B{suffix}", *[f"I{suffix}"] * (stop - start - 1)]
    return tags


def iob2_transitions(labels: Sequence[str]) -> np.ndarray:
    """Returns float[K + 1, K] for `viterbi.best_path`: 0 where a tag may follow another in IOB2, else -inf.

    I- follows only B- or I- of its type, and is not the first tag.
    """
    split = [split_tag(label) for label in labels]
    allowed = [
        [prefix != "I" or (before in ("B", "I") and kind == kind_before) for prefix, kind in split]
        for before, kind_before in [*split, (OUTSIDE, "")]
    ]
    return np.where(allowed, 0.0, -np.inf)


@dataclasses.dataclass(frozen=True)
class DetectedScheme:
    """The scheme of a corpus, its number of entities, and how many of them do not follow the scheme."""

    scheme: str
    entities: int
    irregular: int


def detect_scheme(sentences: Sequence[Sequence[str]]) -> DetectedScheme:
    """Returns the scheme that the fewest entities break; the first of `SCHEMES` among equals."""
    found = _with_prefixes(sentences)
    broken = {scheme: len(_irregular(scheme, found)) for scheme in SCHEMES}
    scheme = min(SCHEMES, key=lambda name: broken[name])
    return DetectedScheme(scheme, len(found), broken[scheme])


def irregular_entities(scheme: str, sentences: Sequence[Sequence[str]]) -> list[tuple[int, Entity]]:
    """Returns (index of the sentence, entity) of the entities that do not follow the scheme."""
    return _irregular(scheme, _with_prefixes(sentences))


def _irregular(scheme: str, found: Iterable[tuple[int, Entity, str, bool]]) -> list[tuple[int, Entity]]:
    return [
        (index, entity)
        for index, entity, prefixes, adjacent in found
        if prefixes != _regular(scheme, len(prefixes), adjacent)
    ]


def _with_prefixes(sentences: Sequence[Sequence[str]]) -> list[tuple[int, Entity, str, bool]]:
    """Returns (index of the sentence, entity, its prefixes, whether it directly follows one of its type)."""
    found = []
    for index, tags in enumerate(sentences):
        before = Entity(-1, -1, "")
        for entity in decode(tags):
            prefixes = "".join(split_tag(tag)[0] for tag in tags[entity.start : entity.stop])
            found.append((index, entity, prefixes, entity.start == before.stop and entity.type == before.type))
            before = entity
    return found


def is_regular(detected: DetectedScheme) -> bool:
    """Returns whether so few entities break the scheme that they are annotation errors."""
    return detected.irregular <= _TOLERATED * max(1, detected.entities)


def _regular(scheme: str, length: int, adjacent: bool) -> str:
    """Returns the prefixes of an entity of `length` words; `adjacent`: it directly follows one of its type."""
    if scheme in ("BIOES", "BILOU"):
        single, last = ("S", "E") if scheme == "BIOES" else ("U", "L")
        return single if length == 1 else "B" + "I" * (length - 2) + last
    if scheme == "IOB1":
        return ("B" if adjacent else "I") + "I" * (length - 1)
    if scheme == "scibert" and length == 1 and not adjacent:
        return "I"
    return "B" + "I" * (length - 1)
