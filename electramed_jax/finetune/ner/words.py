"""Words of a text, as training, scores and `predict` see them, and the tags of these words.

Values of config.ner.words:

    punctuation  a word ends at white space, and each punctuation mark is a word: "IL-2" is the words IL, - and 2.
                 BERT's tokenizer and Hugging Face's pipelines split text in this way.
    file         the words of the file: "IL-2" is one word if the file has it in one line.

A text without a file has no words of the file. `predict` therefore always splits at punctuation, and a model that was
trained on the words of the file was not trained on the "-" and the "2" of "IL-2".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import tags


class Span(NamedTuple):
    """An entity: characters start .. stop-1 of the text."""

    start: int
    stop: int
    type: str


class TextWords(NamedTuple):
    """The words of a text, split at punctuation.

    Attributes:
      pieces: word pieces of each word, at least one.
      offsets: int64[words, 2], first character and the one after the last. Combining marks belong to the character
        before them. Other characters that the tokenizer drops between words are in none.
    """

    pieces: list[list[int]]
    offsets: np.ndarray


def split_texts(texts: Sequence[str], tokenizer: Tokenizer) -> list[TextWords]:
    """Returns the words of each text."""
    is_continued = [token.startswith("##") for token in tokenizer.tokens]
    encoded = zip(texts, tokenizer.encode_with_offsets(texts), strict=True)
    return [_join_pieces(text, ids, offsets, is_continued) for text, (ids, offsets) in encoded]


def _join_pieces(text: str, ids: np.ndarray, offsets: np.ndarray, is_continued: Sequence[bool]) -> TextWords:
    words: list[list[int]] = []
    word_offsets: list[list[int]] = []
    for piece, (start, stop) in zip(ids.tolist(), offsets.tolist(), strict=True):
        if words and is_continued[piece]:
            words[-1].append(piece)
            word_offsets[-1][1] = stop
        else:
            words.append([piece])
            word_offsets.append([start, stop])
    if not text.isascii():  # the normalizer drops the accent of "e\u0301", and the offset of the piece ends before it
        for place in word_offsets:
            while place[1] < len(text) and unicodedata.category(text[place[1]]) in ("Mn", "Me"):
                place[1] += 1
    return TextWords(words, np.array(word_offsets, np.int64).reshape(-1, 2))


def tags_to_spans(word_tags: Sequence[str], offsets: np.ndarray) -> list[Span]:
    """Returns the entities of tagged words; `offsets` are those of the words, int64[words, 2]."""
    return [
        Span(int(offsets[start, 0]), int(offsets[stop - 1, 1]), kind) for start, stop, kind in tags.decode(word_tags)
    ]


def spans_to_tags(spans: Sequence[Span], offsets: np.ndarray) -> list[str]:
    """Returns IOB2 tags of the words that share a character with an entity; of two entities the first one counts."""
    word_tags = [tags.OUTSIDE] * len(offsets)
    for start, stop, kind in spans:
        first, last = np.searchsorted(offsets[:, 1], start, "right"), np.searchsorted(offsets[:, 0], stop, "left")
        free = [word for word in range(first, last) if word_tags[word] == tags.OUTSIDE]
        for word in free:
            word_tags[word] = tags.join_tag("B" if word == free[0] else "I", kind)
    return word_tags


def tags_of_file_words(word_tags: Sequence[str], offsets: np.ndarray, file_offsets: np.ndarray) -> list[str]:
    """Returns the tag of each word of the file: that of the first of its words after the split at punctuation.

    A word of the file without any, because the tokenizer drops its characters, continues the entity around it.

    Args:
      word_tags: IOB2 tags of the words of the text.
      offsets: their offsets, int64[words, 2].
      file_offsets: offsets of the words of the file in the same text, int64[file words, 2].
    """
    first = np.searchsorted(offsets[:, 0], file_offsets[:, 0], "left").tolist()
    file_tags = []
    for word, stop in zip(first, file_offsets[:, 1].tolist(), strict=True):
        tag = word_tags[word] if word < len(word_tags) else tags.OUTSIDE
        has_piece = word < len(word_tags) and offsets[word, 0] < stop
        file_tags.append(tag if has_piece or tags.split_tag(tag)[0] == "I" else tags.OUTSIDE)
    return file_tags
