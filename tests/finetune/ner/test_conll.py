"""CoNLL files as they are found, and one-line errors that name file and line."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.ner import conll


def read(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "train.txt"
    path.write_bytes(text.encode(encoding))
    return conll.read_sentences(str(path))


@pytest.mark.parametrize("between", ["\t", " ", "\tNN\t", " NN I-NP "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_columns_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, between, line_end, encoding):
    lines = ["", "-DOCSTART-" + between + "O", "", f"Naïve{between}B-Drug", f".{between}O", "", "", f"x{between}O", ""]
    first, second = read(tmp_path, line_end.join(lines), encoding)
    assert (first.words, first.tags, first.line) == (("Naïve", "."), ("B-Drug", "O"), 4)
    assert (second.words, second.line) == (("x",), 8)


def test_the_last_sentence_needs_no_empty_line(tmp_path):
    assert [sentence.words for sentence in read(tmp_path, "a O\n\nb O\nc O")] == [("a",), ("b", "c")]


@pytest.mark.parametrize(
    "text, line, message",
    [
        ("a O\nb\n", 2, "one column"),
        ("a O\n\nb\tB_Drug\n", 3, "unknown tag 'B_Drug'"),
        ("a X-Drug\n", 1, "unknown tag 'X-Drug'"),
        ("-DOCSTART- O\n\n", 1, "no sentence"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, text, line, message):
    with pytest.raises(UserError, match=rf"train.txt, line {line}: .*{message}"):
        read(tmp_path, text)


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(UserError, match="train.txt: empty"):
        read(tmp_path, "\ufeff\n \n")
