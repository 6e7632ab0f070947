"""Tokenizer: equal to the exported Hugging Face tokenizer and to Google's, cached words included."""

from __future__ import annotations

import itertools
import json
import random
import unicodedata

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from electramed_jax.data.tokenizer import vocab, word_cache
from electramed_jax.data.tokenizer.tokenizer import Tokenizer

WORDS = [
    "[",
    "]",
    "mask",
    "MASK",
    "kinase",
    "kin",
    "##ase",
    "##s",
    "na",
    "##ive",
    ".",
    "β",
    "Kinase",
]


CASES = [(True, False), (True, True), (False, False)]  # lower_case, keep_accents


@pytest.fixture
def vocab_path(tmp_path) -> str:
    path = str(tmp_path / "vocab.txt")
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, *WORDS])
    return path


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.tokens[number] for number in tokenizer.encode_batch([text])[0]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Kinases.", ["kinase", "##s", "."]),
        ("naïve β", ["na", "##ive", "β"]),
        ("[MASK]", ["[", "mask", "]"]),
        ("[MASK]s kinase", ["[", "mask", "]", "[UNK]", "kinase"]),
        ("kin\u00adase", ["kinase"]),
        ("", []),
    ],
)
def test_text_becomes_lower_case_pieces_and_a_literal_mask_stays_text(vocab_path, text, wanted):
    assert pieces(Tokenizer(vocab_path), text) == wanted


def test_a_cased_tokenizer_keeps_capitals_and_accents(vocab_path):
    tokenizer = Tokenizer(vocab_path, lower_case=False)
    assert pieces(tokenizer, "Kinase [MASK]") == ["Kinase", "[", "MASK", "]"]
    assert pieces(tokenizer, "naïve") == ["[UNK]"]


def test_a_word_beyond_the_hugging_face_limit_is_unknown(tmp_path):
    path = str(tmp_path / "vocab.txt")
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, "a", "##a"])
    tokenizer = Tokenizer(path)
    assert len(pieces(tokenizer, "a" * 100)) == 100
    assert pieces(tokenizer, "a" * 101) == ["[UNK]"]


def test_a_batch_is_encoded_text_by_text(vocab_path):
    tokenizer = Tokenizer(vocab_path)
    texts = ["kinase.", "", "kinases kinase"]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.dtype == np.int32 and ids.ndim == 1
        np.testing.assert_array_equal(ids, tokenizer.encode_batch([text])[0])


def test_decoding_joins_pieces_and_shows_special_tokens(vocab_path):
    tokenizer = Tokenizer(vocab_path)
    ids = [tokenizer.special.cls, *tokenizer.encode_batch(["Kinases."])[0], tokenizer.special.sep]
    assert tokenizer.decode(ids) == "[CLS] kinases. [SEP]"


def test_the_exported_backend_adds_special_tokens_and_types(vocab_path):
    tokenizer = Tokenizer(vocab_path)
    encoding = tokenizer.backend.encode("kinase", "kinases.")
    assert encoding.tokens == ["[CLS]", "kinase", "[SEP]", "kinase", "##s", ".", "[SEP]"]
    assert encoding.type_ids == [0, 0, 0, 1, 1, 1, 1]
    assert tokenizer.backend.encode("[MASK]").tokens == ["[CLS]", "[MASK]", "[SEP]"]


# Every kind of white space, combining marks, control characters, and letters that change when lower-cased.
ODD = "\t\r\x0b\x1c\x85\xa0\u1680\u2003\u2028\u3000\u0300\u0327\u05b0\u200d\x00\x7f\xad\ufffdİßſΣﬁ中\uac01\U0001f600"


def odd_texts(count: int) -> list[str]:
    rng = random.Random(5)
    letters = [*ODD, *"kinase.-[ß\n", *" " * 12]
    return ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("slice_bytes", [16, 1 << 16])
@pytest.mark.parametrize(("lower_case", "keep_accents"), CASES)
def test_ids_of_cached_words_equal_those_of_the_exported_tokenizer_for_the_whole_text(
    tmp_path, monkeypatch, lower_case, keep_accents, slice_bytes
):
    monkeypatch.setattr(word_cache, "_SLICE_BYTES", slice_bytes)
    path = str(tmp_path / "vocab.txt")
    letters = sorted({*unicodedata.normalize("NFD", ODD.lower()), *ODD, *"kinase.-[ß"})
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)])
    tokenizer = Tokenizer(path, lower_case, keep_accents)
    for text, ids in zip(texts := odd_texts(600), tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == tokenizer.backend.encode(text, add_special_tokens=False).ids, ascii(text)


@pytest.mark.parametrize(("lower_case", "keep_accents"), CASES)
def test_ids_of_random_unicode_equal_those_of_the_bert_tokenizer_of_tokenizers(tmp_path, lower_case, keep_accents):
    rng = random.Random(3)
    planes = [range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x400), range(0x1E00, 0x2100), range(0x21, 0x30000)]
    texts = ["".join(chr(rng.choice(rng.choice(planes))) for _ in range(30)) for _ in range(400)]
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]  # without surrogates
    forms = "".join(texts + [text.lower() for text in texts])
    letters = sorted(
        {*forms, *unicodedata.normalize("NFD", forms)} - {*" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029"}
    )
    path = str(tmp_path / "vocab.txt")
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)])
    theirs = BertWordPieceTokenizer(path, lowercase=lower_case, strip_accents=lower_case and not keep_accents)
    tokenizer = Tokenizer(path, lower_case, keep_accents)
    accented = sum("é" in tokenizer.tokens[n] for ids in tokenizer.encode_batch(["É É"]) for n in ids)
    assert accented == (2 if keep_accents else 0)
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids, ascii(text)


@pytest.mark.parametrize("lower_case", [True, False])
def test_offsets_have_the_same_ids_and_the_position_of_each_piece(tmp_path, lower_case):
    path = str(tmp_path / "vocab.txt")
    letters = sorted({*unicodedata.normalize("NFD", ODD.lower()), *ODD, *"kinase.-[ß"})
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, "kinase", *letters, *(f"##{letter}" for letter in letters)])
    tokenizer = Tokenizer(path, lower_case)
    texts = [*odd_texts(600), "\U0001f600 kinases naïve [SEP]", ""]
    found = tokenizer.encode_with_offsets(texts)
    for text, ids, (same_ids, offsets) in zip(texts, tokenizer.encode_batch(texts), found, strict=True):
        assert same_ids.tolist() == ids.tolist(), ascii(text)
        assert offsets.shape == (len(ids), 2) and offsets.dtype == np.int32
        for number, (start, stop) in zip(ids.tolist(), offsets.tolist(), strict=True):
            there = unicodedata.normalize("NFD", text[start:stop].lower() if lower_case else text[start:stop])
            piece = unicodedata.normalize("NFD", tokenizer.tokens[number].removeprefix("##"))
            assert number == tokenizer.special.unk or piece in there, ascii((text, piece, there))
            assert text[start:stop].strip() == text[start:stop] != ""
    kinase = found[-2][1][1]
    assert texts[-2][kinase[0] : kinase[1]] == "kinase"


def test_words_are_found_when_many_share_a_slot(vocab_path, monkeypatch):
    words = ["kin" + "".join(pieces) for pieces in itertools.product(("ase", "s", "ive"), repeat=6)][:400]
    wanted = [ids.tolist() for ids in Tokenizer(vocab_path).encode_batch(words)]
    assert len(set(map(tuple, wanted))) == 400
    monkeypatch.setattr(word_cache, "_SLOT_BITS", 9)
    tokenizer = Tokenizer(vocab_path)
    for _ in range(2):
        assert [tokenizer.encode_batch([word])[0].tolist() for word in words] == wanted


def test_ids_are_the_same_after_the_cache_was_cleared(vocab_path, monkeypatch):
    texts = [f"kinases naïve {number} [mask] kin" for number in range(10)]
    wanted = [ids.tolist() for ids in Tokenizer(vocab_path).encode_batch(texts)]
    monkeypatch.setattr(word_cache, "MAX_WORDS", 3)
    tokenizer = Tokenizer(vocab_path)
    assert [tokenizer.encode_batch([text])[0].tolist() for text in texts] == wanted


def differs_by_design(text: str) -> bool:
    """Returns whether Hugging Face's tokenizer, which the export must equal, differs from Google's for this text.

    Such texts have words of more than 100 characters, a capital sigma at the end of a word, or characters that
    Unicode has not assigned.
    """
    return (
        max(map(len, text.split()), default=0) > 100
        or "Σ" in text
        or any(unicodedata.category(letter) == "Cn" for letter in text)
    )


@pytest.mark.parametrize(("mode", "lower_case"), [("lower", True), ("cased", False)])
def test_pieces_equal_those_of_the_reference_tokenizer(shared_data, mode, lower_case):
    folder = shared_data / "oracle" / "data"
    tokenizer = Tokenizer(str(folder / "vocab.txt"), lower_case)
    strings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["strings"]
    strings = [entry for entry in strings if not differs_by_design(entry["text"])]
    different = [
        entry["text"] for entry in strings if tokenizer.encode_batch([entry["text"]])[0].tolist() != entry[mode]["ids"]
    ]
    assert different == []
    assert len(strings) > 200


def test_no_texts_have_no_ids(vocab_path):
    assert Tokenizer(vocab_path).encode_batch([]) == []
