"""The check of words and docstrings finds what it is for."""

from __future__ import annotations

import re

import pytest
import word_check


def test_words_are_counted_in_prose_and_not_in_code(tmp_path, monkeypatch):
    monkeypatch.setattr(word_check, "PATTERN", re.compile(r"\b(red|green|blue)\b"))
    path = tmp_path / "a.py"
    path.write_text('"""A red run."""\n\ngreen = 1  # it is green in `blue`, see b.py\nprint(f"blue {green}")\n')
    words = [
        (number, match[0]) for number, text in word_check.texts(path) for match in word_check.PATTERN.finditer(text)
    ]
    assert words == [(1, "red"), (3, "green"), (4, "blue")]


def test_a_docstring_begins_with_a_result_or_an_action(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""Reads."""\ndef f():\n    """What is read."""\ndef g():\n    """Office hours."""\n')
    assert list(word_check.bad_docstrings(path)) == [(2, "What is read.")]


@pytest.mark.slow
def test_no_docstring_of_the_package_begins_badly():
    found = [
        (path.name, *each)
        for path in word_check.files("electramed_jax")
        if path.suffix == ".py"
        for each in word_check.bad_docstrings(path)
    ]
    assert found == []
