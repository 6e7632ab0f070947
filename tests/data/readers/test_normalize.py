from __future__ import annotations

import pytest

from electramed_jax.data.readers import normalize as cleaning
from electramed_jax.data.readers.normalize import clean, reason_to_drop


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("  two   words\t\there ", "two words here"),
        ("no\u00a0break\u2009thin", "no break thin"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("a \n\n \n b", "a\nb"),
        ("beta\u0301", "bet\u00e1"),
        ("soft\u00adhyphen zero\u200bwidth \ufeffmark", "softhyphen zerowidth mark"),
        ("bell\x07 null\x00", "bell null"),
        ("lone \ud83d surrogate", "lone surrogate"),
        ("α-catenin ≥ 5 µM 😀", "α-catenin ≥ 5 µM 😀"),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_a_text_is_tidied_but_says_the_same(text, wanted):
    assert clean(text) == wanted
    assert clean(wanted) == wanted
    wanted.encode("utf-8")


@pytest.mark.parametrize(("text", "reason"), [("", "empty"), ("short", "too_short"), ("exactly 10", None)])
def test_a_document_not_worth_training_on_has_a_reason(text, reason):
    assert reason_to_drop(text, min_chars=10) == reason


def test_a_text_that_is_seen_to_be_tidy_is_what_the_long_way_makes_of_it(monkeypatch):
    letters = [chr(code) for code in range(0x3100) if chr(code) != " "]
    texts = [f"a{letter}b" for letter in letters] + [f"a{one}{two}b" for one in " \n.\t" for two in " \n.\t"]
    quick = [clean(text) for text in texts]
    monkeypatch.setattr(cleaning, "_is_tidy", lambda text: False)
    assert quick == [clean(text) for text in texts]
