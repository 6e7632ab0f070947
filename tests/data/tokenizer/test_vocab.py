"""WordPiece vocabularies: deterministic training, vocab.txt files, special tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from tokenizers import normalizers

from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.tokenizer import vocab

TEXTS = [
    "The kinase phosphorylates the receptor kinase.",
    "Kinases and receptors bind; the binding of kinases is specific.",
    "Patients received 5 mg of naïve β-blockers (n = 12).",
] * 3

TRAIN = """
from electramed_jax.data.tokenizer import vocab
print("\\n".join(vocab.train_wordpiece({texts!r}, 160)))
"""


def test_a_vocabulary_begins_with_the_special_tokens_and_has_no_token_twice():
    tokens = vocab.train_wordpiece(TEXTS, 120)
    assert tuple(tokens[:5]) == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    assert len(set(tokens)) == len(tokens) == 120
    assert "kinase" in tokens


def test_another_process_trains_the_same_vocabulary():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", TRAIN.format(texts=TEXTS)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].split() == vocab.train_wordpiece(TEXTS, 160)


def test_every_letter_of_the_corpus_is_in_the_vocabulary_alone_and_as_a_continuation():
    tokens = set(vocab.train_wordpiece(TEXTS, 120))
    letters = set("".join(TEXTS).lower().replace("ï", "i")) - {" "}
    assert letters <= tokens
    assert {f"##{letter}" for letter in letters} <= tokens


@pytest.mark.parametrize("lower_case", [True, False])
def test_the_letters_are_the_most_frequent_ones_of_the_normalized_texts(lower_case, monkeypatch):
    texts = [
        "ABBA İstanbul Å a\u030a e\u0323\u0302 한글 中文 ǅ ﬁ ẞ ΑΣ \u0378",
        "\x00\x85\u200d\ufffd\xa0b b\u3000b",
        "",
    ]
    normalize = normalizers.BertNormalizer(lowercase=lower_case).normalize_str
    counts = Counter("".join(map(normalize, texts)).replace(" ", ""))
    assert {token for token in vocab.train_wordpiece(texts, 500, lower_case) if len(token) == 1} == set(counts)
    monkeypatch.setattr(vocab, "MAX_CHARACTERS", 2)
    wanted = sorted(letter for letter, _ in counts.most_common(2))
    assert [token for token in vocab.train_wordpiece(texts, 500, lower_case) if len(token) == 1] == wanted


def test_capitals_and_accents_survive_only_when_cased():
    assert {"K", "ï"} <= set(vocab.train_wordpiece(TEXTS, 200, lower_case=False))
    assert not {"K", "ï"} & set(vocab.train_wordpiece(TEXTS, 200))


def test_the_error_for_a_size_below_the_alphabet_names_the_needed_size():
    with pytest.raises(UserError, match=r"size=20 is too small.*use --size \d+ or more"):
        vocab.train_wordpiece(TEXTS, 20)


def test_words_that_the_tokenizer_maps_to_unk_are_left_out_and_no_others():
    texts = [
        "the longest word of all is kept",
        "x" * 100,
        "the \u6211" + "\u6211" * 200,
        "a" * 150 + ",the-" + "b" * 90,
    ]
    left = list(vocab._drop_long_words([*texts, "acgt" * 100_000 + " end"]))
    assert left == [*texts[:3], " ,the-" + "b" * 90, "  end"]
    trained = vocab.train_wordpiece(["the end of the end"] * 3, 40)
    assert vocab.train_wordpiece(["the end of the end", "the " + "nd" * 200_000 + " end of the end"] * 3, 40) == trained


@pytest.mark.parametrize("texts", [[], [" \n "]])
def test_training_on_no_text_is_a_user_error(texts):
    with pytest.raises(UserError, match="no text to train a vocabulary on"):
        vocab.train_wordpiece(texts, 100)


def test_a_small_corpus_gives_fewer_tokens_than_requested():
    assert 60 < len(vocab.train_wordpiece(TEXTS, 5000)) < 5000


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
