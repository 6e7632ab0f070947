"""A tagged text: words and tags of a file, the text that they are from, and its entities by character."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence

import numpy as np

from electramed_jax.finetune.ner import words as word_lib
from electramed_jax.finetune.ner.words import Span

_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")  # split at white space and at each punctuation mark


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence of a corpus, or a passage of any length.

    Attributes:
      words, tags: as in the file.
      line: line of the file (from 1) of the first word.
      standoff: the text and its entities if the file gives them by character; None for a file of words.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    line: int
    standoff: Standoff | None = None

    @classmethod
    def from_spans(cls, text: str, spans: Sequence[Span], line: int) -> Sentence:
        """Returns a text with entities by character, tagged in IOB2. Of overlapping entities the longest is tagged."""
        offsets = np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)
        by_length = sorted(spans, key=_longest_first)
        word_tags = word_lib.spans_to_tags(by_length, offsets)
        words = tuple(text[start:stop] for start, stop in offsets.tolist())
        return cls(words, tuple(word_tags), line, Standoff(text, offsets, tuple(sorted(spans))))

    @functools.cached_property
    def text(self) -> str:
        """The text; the words separated by single spaces if the file has only words.

        A file of words does not have the spaces of the original text. The tokenizer splits "( IL-2 )" and "(IL-2)" into
        the same pieces.
        """
        return self.standoff.text if self.standoff else " ".join(self.words)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """First character of each word in `text` and the one after the last, int64[words, 2]."""
        if self.standoff:
            return self.standoff.offsets
        lengths = [len(word) for word in self.words]
        starts = [0, *itertools.accumulate(length + 1 for length in lengths)][: len(lengths)]
        return np.array([starts, np.add(starts, lengths)], np.int64).T.reshape(-1, 2)

    @functools.cached_property
    def spans(self) -> list[Span]:
        """The entities of the file, by character of `text`."""
        return list(self.standoff.spans) if self.standoff else word_lib.tags_to_spans(self.tags, self.offsets)

    @property
    def num_untaggable(self) -> int:
        """Number of entities that no tags can give: they overlap a longer one, or begin or end inside a word."""
        return len(set(self.spans) - set(word_lib.tags_to_spans(self.tags, self.offsets)))

    @property
    def num_overlapping(self) -> int:
        """Number of entities that no tags can give because they share characters with a longer one, nested or not."""
        lost = set(self.spans) - set(word_lib.tags_to_spans(self.tags, self.offsets))
        return sum(
            any(
                other.start < span.stop and span.start < other.stop and _longest_first(other) < _longest_first(span)
                for other in self.spans
            )
            for span in lost
        )

    def line_of(self, word: int) -> int:
        """Returns the line of a word in the file; of a text with entities by character its first line."""
        return self.line if self.standoff else self.line + word


def _longest_first(span: Span) -> tuple[int, Span]:
    """Returns a key that sorts entities in the order in which they get tags."""
    return span.start - span.stop, span


@dataclasses.dataclass(frozen=True, eq=False)
class Standoff:
    """A text, its words as `offsets` int64[words, 2], and its entities, which may overlap."""

    text: str
    offsets: np.ndarray
    spans: tuple[Span, ...]
