"""vocab.txt files and special tokens."""

from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.tokenizer import vocab


def test_a_written_vocabulary_is_read_back_in_order(tmp_path):
    path = str(tmp_path / "vocab.txt")
    tokens = [*vocab.SPECIAL_TOKENS, "β", "##in"]
    vocab.write_vocab(path, tokens)
    assert (tmp_path / "vocab.txt").read_bytes().endswith("[MASK]\nβ\n##in\n".encode())
    assert vocab.read_vocab(path) == tokens


def test_windows_line_ends_are_read(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\r\n[UNK]\r\nword\r\n")
    assert vocab.read_vocab(str(tmp_path / "vocab.txt")) == ["[PAD]", "[UNK]", "word"]


def test_the_sha256_changes_with_the_order_of_tokens(tmp_path):
    paths = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    vocab.write_vocab(paths[0], ["a", "b"])
    vocab.write_vocab(paths[1], ["b", "a"])
    assert vocab.sha256(paths[0]) != vocab.sha256(paths[1])


@pytest.mark.parametrize(("data", "message"), [(b"", "empty"), (b"a\nb\na\n", "token 'a' occurs 2 times")])
def test_an_unusable_file_is_a_user_error(tmp_path, data, message):
    (tmp_path / "vocab.txt").write_bytes(data)
    with pytest.raises(UserError, match=message):
        vocab.read_vocab(str(tmp_path / "vocab.txt"))


def test_special_tokens_are_found_at_any_position():
    tokens = ["x", "[MASK]", "[SEP]", "[PAD]", "[CLS]", "[UNK]"]
    assert vocab.special_ids(tokens) == SpecialIds(pad=3, unk=5, cls=4, sep=2, mask=1)


def test_missing_special_tokens_are_named():
    with pytest.raises(UserError, match=r"lacks \[CLS\] \[MASK\]"):
        vocab.special_ids(["[PAD]", "[UNK]", "[SEP]", "x"])
