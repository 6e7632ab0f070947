"""Random tag sequences, including those that occur in no corpus."""

from __future__ import annotations

import random


def random_tags(generator: random.Random, prefixes: str, kinds: str) -> list[str]:
    """Returns 1 to 11 tags in random order; most sequences are invalid in every tagging scheme."""
    vocabulary = ["O", "O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in kinds)]
    return [generator.choice(vocabulary) for _ in range(generator.randrange(1, 12))]
