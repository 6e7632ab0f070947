"""Tag sequences that no corpus would hold."""

from __future__ import annotations

import random


def random_tags(draw: random.Random, prefixes: str, kinds: str) -> list[str]:
    """Any order of tags, most of them against every scheme."""
    vocabulary = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in kinds)]
    return [draw.choice(vocabulary) for _ in range(draw.randrange(1, 12))]
