"""An entity found in a text."""

from __future__ import annotations

from typing import NamedTuple


class EntitySpan(NamedTuple):
    """An entity: characters start .. stop-1 of the text.

    Attributes:
      confidence: the mean over its words of the probability of the tag that each was given.
    """

    start: int
    stop: int
    type: str
    confidence: float
