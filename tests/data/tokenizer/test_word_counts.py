"""Counts of words: as the pre-tokenizer of BERT finds them in the whole text, whatever the number of processes."""

from __future__ import annotations

import json
import pathlib
import random
from collections import Counter

import pytest
from tokenizers import normalizers, pre_tokenizers
from trained_vocab import counted

from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.tokenizer import word_counts
from electramed_jax.data.tokenizer.train_vocab import train_vocab

# Every kind of white space, combining marks, control characters, and letters that change when lower-cased.
ODD = "\t\r\x0b\x0c\x1c\x85\xa0\u1680\u2028\u3000\u0300\u0327\u200d\x00\x7f\xad\ufffdİßſΣﬁÉ中\uac01\U0001f600"
CASES = [(True, False), (True, True), (False, False)]


def odd_texts(count: int) -> list[str]:
    rng = random.Random(7)
    letters = [*ODD, *"Kinase.-[ß\n", *" " * 12]
    return ["".join(rng.choices(letters, k=rng.randrange(60))) for _ in range(count)]


@pytest.mark.parametrize(("lower_case", "keep_accents"), CASES)
@pytest.mark.parametrize("words_in_memory", [5, 1 << 18])
def test_words_are_those_of_the_whole_text(lower_case, keep_accents, words_in_memory, monkeypatch):
    monkeypatch.setattr(word_counts, "MAX_WORDS_IN_MEMORY", words_in_memory)
    monkeypatch.setattr(word_counts, "_BATCH_BYTES", 64)
    texts = [*odd_texts(300), "中文" * 500 + " kinase", ""]
    normalizer = normalizers.BertNormalizer(lowercase=lower_case, strip_accents=lower_case and not keep_accents)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wanted = Counter(
        word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
    )
    with counted(texts, lower_case, keep_accents) as counts:
        found = list(counts)
        assert Counter(dict(found)) == wanted and counts.distinct == len(found) == len(wanted)
        letters = Counter()
        for word, count in wanted.items():
            letters.update({letter: word.count(letter) * count for letter in set(word)})
        assert counts.letters == letters


def test_the_most_frequent_words_are_chosen_by_their_count_alone():
    with counted(["a a a b b c c d"]) as counts:
        for limit, wanted in [(0, ""), (1, "a"), (2, "a"), (3, "abc"), (4, "abcd"), (9, "abcd")]:
            assert {word for word, _ in counts.most_frequent(limit)} == set(wanted)
            assert counts.occurrences(limit) == sum({"a": 3, "b": 2, "c": 2, "d": 1}[word] for word in wanted)


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> str:
    folder: pathlib.Path = tmp_path_factory.mktemp("documents")
    rng = random.Random(1)
    stems = ["kinas", "recept", "bind", "phosphat", "naïv", "β-block"]
    for number in range(3):
        texts = [" ".join(rng.choice(stems) + rng.choice("aeiou") for _ in range(60)) for _ in range(30)]
        (folder / f"{number}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    paths = sorted(map(str, folder.glob("*.jsonl")))
    prepare(paths, str(folder / "out"), FilterConfig(validation=0, test=0), workers=1)
    return str(folder / "out")


@pytest.mark.multiprocess
def test_the_vocabulary_does_not_depend_on_processes_or_on_the_words_in_memory(documents, tmp_path, monkeypatch):
    train_vocab(documents, str(tmp_path / "two"), size=150, workers=2)
    monkeypatch.setattr(word_counts, "MAX_WORDS_IN_MEMORY", 7)
    result = train_vocab(documents, str(tmp_path / "one"), size=150, workers=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert result["size"] > 90 and result["distinct_words"] > 30


def test_accents_of_lower_cased_text_are_kept_if_asked_for(documents, tmp_path):
    for keep_accents in (True, False):
        path = tmp_path / f"{keep_accents}"
        train_vocab(documents, str(path), size=200, keep_accents=keep_accents, workers=1)
        tokens = path.read_text().splitlines()
        assert ("ï" in tokens) is keep_accents and "K" not in tokens
