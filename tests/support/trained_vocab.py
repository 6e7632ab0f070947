"""Counts the words of texts and trains vocabularies on them, for tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator

from electramed_jax.data.tokenizer import word_counts
from electramed_jax.data.tokenizer.wordpiece_trainer import train_wordpiece


@contextlib.contextmanager
def counted(
    texts: Iterable[str], lower_case: bool = True, keep_accents: bool = False
) -> Iterator[word_counts.WordCounts]:
    """Yields the counts of the words of texts; their files exist inside the `with` block."""
    with tempfile.TemporaryDirectory() as folder:
        yield word_counts.count_texts(texts, folder, lower_case=lower_case, keep_accents=keep_accents)


def train(texts: Iterable[str], size: int, lower_case: bool = True, keep_accents: bool = False) -> list[str]:
    """Returns the tokens of a vocabulary trained on texts."""
    with counted(texts, lower_case, keep_accents) as counts:
        return train_wordpiece(counts, size)
