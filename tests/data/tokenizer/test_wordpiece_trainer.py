"""Training of WordPiece vocabularies: deterministic, as the trainer of tokenizers on the whole text, bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from trained_vocab import counted, train

from electramed_jax.common.errors import UserError
from electramed_jax.data.synthetic.articles import generate_article
from electramed_jax.data.tokenizer import wordpiece_trainer
from electramed_jax.data.tokenizer.wordpiece_trainer import scale_counts

TEXTS = [
    "The kinase phosphorylates the receptor kinase.",
    "Kinases and receptors bind; the binding of kinases is specific.",
    "Patients received 5 mg of naïve β-blockers (n = 12).",
] * 3

TRAIN = """
import trained_vocab
print("\\n".join(trained_vocab.train({texts!r}, 160)))
"""


def test_a_vocabulary_begins_with_the_special_tokens_and_has_no_token_twice():
    tokens = train(TEXTS, 120)
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
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONIOENCODING": "utf-8",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].split() == train(TEXTS, 160)


def test_every_letter_of_the_corpus_is_in_the_vocabulary_alone_and_as_a_continuation():
    tokens = set(train(TEXTS, 120))
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
    assert {token for token in train(texts, 500, lower_case) if len(token) == 1} == set(counts)
    monkeypatch.setattr(wordpiece_trainer, "MAX_CHARACTERS", 2)
    wanted = sorted(letter for letter, _ in counts.most_common(2))
    assert [token for token in train(texts, 500, lower_case) if len(token) == 1] == wanted


def test_capitals_and_accents_survive_only_when_cased():
    assert {"K", "ï"} <= set(train(TEXTS, 200, lower_case=False))
    assert not {"K", "ï"} & set(train(TEXTS, 200))


def test_the_error_for_a_size_below_the_alphabet_names_the_needed_size():
    with pytest.raises(UserError, match=r"size=20 is too small.*use --size \d+ or more"):
        train(TEXTS, 20)


def test_words_that_the_tokenizer_maps_to_unk_are_left_out_and_no_others():
    texts = [
        "the longest word of all is kept",
        "x" * 100,
        "the \u6211" + "\u6211" * 200,
        "a" * 150 + ",the-" + "b" * 90,
    ]
    texts.append("acgt" * 100_000 + " end")
    wanted = Counter("the longest word of all is kept the , the - end".split())
    wanted += Counter({"x" * 100: 1, "b" * 90: 1, "\u6211": 201})
    with counted(texts) as counts:
        assert dict(counts) == wanted
    trained = train(["the end of the end"] * 3, 40)
    assert train(["the end of the end", "the " + "nd" * 200_000 + " end of the end"] * 3, 40) == trained


@pytest.mark.parametrize("texts", [[], [" \n "]])
def test_training_on_no_text_is_a_user_error(texts):
    with pytest.raises(UserError, match="no text to train a vocabulary on"):
        train(texts, 100)


def test_a_small_corpus_gives_fewer_tokens_than_requested():
    assert 60 < len(train(TEXTS, 5000)) < 5000


def train_on_whole_texts(texts: list[str], size: int, letters: list[str]) -> list[str]:
    """Returns the vocabulary that the trainer of tokenizers finds when it reads, normalizes and splits the texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fixed = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, special_tokens=fixed,
        initial_alphabet=letters, limit_alphabet=len(letters), continuing_subword_prefix="##",
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]


def test_counted_words_give_the_vocabulary_of_the_whole_text():
    articles = (generate_article(seed=3, number=number) for number in range(300))
    texts = ["\n".join([article.title, *(text for _, text in article.sections)]) for article in articles]
    found = train(texts, 1500)
    letters = sorted({token for token in found if len(token) == 1})
    assert found == train_on_whole_texts(texts, 1500, letters)


def test_a_large_corpus_is_trained_on_its_most_frequent_words_with_counts_in_proportion(monkeypatch):
    texts = ["kinase " * 600, "receptor " * 3, "rare rarer " * 2]
    assert {"kinase", "receptor", "rare"} <= set(train(texts, 100))
    monkeypatch.setattr(wordpiece_trainer, "MAX_WORDS", 3)  # two, as the third and the fourth are equally frequent
    assert {"kinase", "receptor", "rare"} & set(train(texts, 100)) == {"kinase", "receptor"}
    monkeypatch.setattr(wordpiece_trainer, "MAX_OCCURRENCES", 100)  # three in 603 are less than half of one in 100
    assert {"kinase", "receptor", "rare"} & set(train(texts, 100)) == {"kinase"}


def test_scaled_counts_are_rounded_and_words_without_any_left_out():
    words = [("a", 750), ("b", 245), ("c", 4), ("d", 1)]
    assert list(scale_counts(words, 1000, 1000)) == words
    assert list(scale_counts(words, 1000, 100)) == [("a", 75), ("b", 25)]
