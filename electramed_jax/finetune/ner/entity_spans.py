"""A predicted entity of a text."""

from __future__ import annotations

from typing import NamedTuple


class EntitySpan(NamedTuple):
    """A predicted entity: characters start .. stop-1 of the text.

    Attributes:
      confidence: mean probability of the predicted tags of its words.
    """

    start: int
    stop: int
    type: str
    confidence: float
