from __future__ import annotations

import pytest

from electramed_jax.data.readers import normalize
from electramed_jax.data.readers.normalize import clean, drop_reason


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
        ("half \ud83d surrogate", "half surrogate"),
        ("α-catenin ≥ 5 µM 😀", "α-catenin ≥ 5 µM 😀"),
        ("", ""),
        (" \n\t ", ""),
    ],
)
def test_a_text_is_cleaned_and_cleaning_is_idempotent(text, wanted):
    assert clean(text) == wanted
    assert clean(wanted) == wanted
    wanted.encode("utf-8")


@pytest.mark.parametrize(("text", "reason"), [("", "empty"), ("short", "too_short"), ("exactly 10", None)])
def test_empty_and_short_texts_have_a_reason_to_be_dropped(text, reason):
    assert drop_reason(text, min_chars=10) == reason


def test_the_fast_path_gives_the_result_of_the_full_path(monkeypatch):
    letters = [chr(code) for code in range(0x3100) if chr(code) != " "]
    texts = [f"a{letter}b" for letter in letters] + [f"a{one}{two}b" for one in " \n.\t" for two in " \n.\t"]
    fast = [clean(text) for text in texts]
    monkeypatch.setattr(normalize, "_is_clean", lambda text: False)
    assert fast == [clean(text) for text in texts]
