"""The words of a text, and how tags move between these words, those of a file, and characters."""

from __future__ import annotations

import numpy as np
import pytest
from invented_corpus import TOKENS

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import words
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.ner.words import Span

TOKENIZER = Tokenizer.from_tokens([*TOKENS, "-", "(", ")", ",", "il", "##2", "2", "#"], True)


def split(text: str) -> list[str]:
    (text_words,) = words.split_texts([text], TOKENIZER)
    return [text[start:stop] for start, stop in text_words.offsets.tolist()]


def test_each_punctuation_mark_is_a_word_whatever_the_spaces():
    assert split("(IL-2),") == split("( IL - 2 ) ,") == ["(", "IL", "-", "2", ")", ","]
    assert split("IL2\u00a0\tatenolol\u200b #") == ["IL2", "atenolol", "#"]
    assert split(" \u200b\n") == []


@pytest.mark.parametrize("keep_accents", [False, True])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a do\u0301se\u0301 of", ["a", "do\u0301se\u0301", "of"]),
        ("dose\u0301\u0327, of", ["dose\u0301\u0327", ",", "of"]),
        ("dose\tof\r\npatients\u00a0in", ["dose", "of", "patients", "in"]),
        ("a \U0001f469\u200d\U0001f52c dose\ufe0f", ["a", "\U0001f469\u200d\U0001f52c", "dose\ufe0f"]),
        ("\ufeffdose\u2028of", ["dose", "of"]),
    ],
)
def test_words_are_whole_characters_of_the_raw_text(text, wanted, keep_accents):
    """A combining mark belongs to the character before it, although the normalizer drops it."""
    tokenizer = Tokenizer.from_tokens(TOKENS, True, keep_accents=keep_accents)
    (text_words,) = words.split_texts([text], tokenizer)
    assert [text[start:stop] for start, stop in text_words.offsets.tolist()] == wanted


def test_word_pieces_of_a_word_stay_together():
    (text_words,) = words.split_texts(["atenolol-il2"], TOKENIZER)
    assert [[TOKENIZER.tokens[piece] for piece in pieces] for pieces in text_words.pieces] == [
        ["at", "##en", "##ol", "##ol"],
        ["-"],
        ["il", "##2"],
    ]


def test_a_word_is_in_an_entity_if_it_shares_a_character_with_it():
    offsets = np.array([[0, 2], [2, 3], [3, 8], [9, 12]])
    assert words.spans_to_tags([Span(0, 3, "A"), Span(3, 8, "A")], offsets) == ["B-A", "I-A", "B-A", "O"]
    assert words.spans_to_tags([Span(5, 11, "")], offsets) == ["O", "O", "B", "I"]
    assert words.spans_to_tags([Span(0, 8, "A"), Span(2, 12, "B")], offsets) == ["B-A", "I-A", "I-A", "B-B"]
    assert words.spans_to_tags([Span(8, 9, "A")], offsets) == ["O"] * 4


@pytest.mark.parametrize(
    ("of_text", "of_file"),
    [
        (["O", "B", "I", "I", "I"], ["O", "B", "I", "I"]),
        (["O", "B", "O", "O", "O"], ["O", "B", "O", "O"]),
        (["O", "O", "B", "I", "O"], ["O", "O", "O", "O"]),
    ],
)
def test_a_word_of_the_file_has_the_tag_of_its_first_word(of_text, of_file):
    """The third word of the file has no word piece: it continues the entity around it."""
    sentence = Sentence(("the", "IL-2", "\u200b", "dose"), ("O",) * 4, 1)
    (text_words,) = words.split_texts([sentence.text], TOKENIZER)
    assert words.tags_of_file_words(of_text, text_words.offsets, sentence.offsets) == of_file


def test_the_entities_of_a_sentence_are_those_of_its_text():
    sentence = Sentence(("the", "IL-2", "dose", "\u00e9"), ("O", "B-Drug", "I-Drug", "B-X"), 1)
    assert [(sentence.text[start:stop], kind) for start, stop, kind in sentence.spans] == [
        ("IL-2 dose", "Drug"),
        ("\u00e9", "X"),
    ]
