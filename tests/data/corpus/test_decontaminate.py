from __future__ import annotations

import gzip
import json
import random

import pytest

from electramed_jax.data.corpus import decontaminate, eval_texts
from electramed_jax.data.readers.document import parse_positive_int

# 86 letters and digits; as a tokenised corpus has it, and as an article may.
LONG = (
    "In 24 healthy volunteers , zolamine ( 5 mg / kg ) lowered blood pressure - but not the heart rate - "
    "within two hours ."
)
AS_PRINTED = (
    "In 24 healthy volunteers, ZOLAMINE (5\u00a0mg/kg) lowered blood\npressure — but not the heart rate — "
    "within two hours."
)
SHORT = [
    "The authors have no conflict of interest that they wish to declare .",
    "All of the patients gave their written consent before they took part .",
    "A value of p below 0.05 was taken to be statistically significant .",
]


def index(*passages: str, pmids: set[int] = frozenset()) -> decontaminate.Index:
    return decontaminate.build([(set(pmids), list(passages))])


def test_a_long_sentence_is_found_whatever_its_spaces_punctuation_and_case():
    sought = index(LONG)
    assert sought.matches(None, f"A title\nBefore it. {AS_PRINTED} After it.") == [(0, "sentence")]
    assert sought.matches(None, AS_PRINTED) == [(0, "sentence")]
    assert sought.matches(None, AS_PRINTED.replace("two hours", "2 hours")) == []


def test_it_takes_eighty_letters_and_digits_or_three_sentences_of_forty_eight():
    letters = decontaminate.normalized(LONG).decode()
    assert index(letters[:80]).matches(None, letters) == [(0, "sentence")]
    assert index(letters[:79]).matches(None, letters) == []
    assert index(letters[:47], letters[40:70]).matches(None, letters) == []
    text = " Or so. ".join(SHORT)
    assert index(*SHORT).matches(None, text) == [(0, "sentence")]
    assert index(*SHORT[:2], SHORT[2][:30]).matches(None, text) == []


def test_short_sentences_count_only_at_places_of_their_own():
    letters = decontaminate.normalized(LONG).decode()
    overlapping = index(*(letters[start : start + 50] for start in range(20)))
    assert overlapping.matches(None, letters) == []
    assert overlapping.matches(None, " ".join([letters] * 3)) == [(0, "sentence")]


def test_each_evaluation_file_is_told_that_holds_a_document_out_and_how():
    sought = decontaminate.build([({7}, [LONG]), (set(), [LONG]), ({7, 8}, []), (set(), SHORT[:2])])
    assert sought.matches(7, AS_PRINTED) == [(0, "pmid"), (2, "pmid"), (1, "sentence")]
    assert sought.matches(8, "Another text.") == [(2, "pmid")]
    assert sought.matches(6, "Another text.") == sought.matches(None, "") == []
    assert sought.counts(4) == [
        {"pmids": 1, "sentences": 1},
        {"pmids": 0, "sentences": 1},
        {"pmids": 2, "sentences": 0},
        {"pmids": 0, "sentences": 2},
    ]


def test_an_index_that_was_saved_finds_the_same(tmp_path):
    path = str(tmp_path / "index.npz")
    index(LONG, pmids={7}).save(path)
    loaded = decontaminate.load(path)
    assert loaded.matches(7, "") == [(0, "pmid")] and loaded.matches(None, AS_PRINTED) == [(0, "sentence")]


def test_files_without_sentences_or_without_pmids_make_an_index_all_the_same():
    assert index(pmids={7}).matches(8, AS_PRINTED) == []
    assert index("Short.").matches(8, AS_PRINTED) == []


@pytest.mark.parametrize("seed", range(3))
def test_every_sentence_that_searching_the_whole_text_finds_is_found_and_no_other(seed):
    draw = random.Random(seed)
    text = "".join(draw.choices("ab", k=4000))  # of two letters, so that windows are often equal
    sentences = [text[start : start + draw.randrange(80, 120)] for start in draw.choices(range(3900), k=40)]
    sentences += ["".join(draw.choices("ab", k=85)) for _ in range(40)]
    parts = [text[start : start + 1500] for start in range(0, 4000, 250)]
    for number, sentence in enumerate(sentences):
        sought = decontaminate.build([(set(), [sentence])])
        for part in parts[number % 4 :: 4]:
            assert bool(sought.matches(None, part)) == (sentence in part)


@pytest.fixture(scope="module")
def test_sets(shared_data) -> decontaminate.Index:
    folder = shared_data / "eval"
    patterns = ("ner/*/electramed/test.txt", "qa/*/electramed/*.json", "re/*/*/test.csv")
    return decontaminate.read(str(path) for pattern in patterns for path in sorted(folder.glob(pattern)))


def abstracts(shared_data) -> list[dict]:
    with gzip.open(shared_data / "corpus" / "abstracts-pmc-000.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_a_corpus_from_which_the_test_sets_had_been_taken_out_holds_nothing_of_them(shared_data, test_sets):
    articles = abstracts(shared_data)
    found = [test_sets.matches(parse_positive_int(a.get("pmid")), f"{a['title']}\n{a['text']}") for a in articles]
    assert len(found) > 4000 and not any(found)


def test_every_long_sentence_of_the_test_sets_is_found_where_it_is_planted(shared_data, test_sets):
    path = shared_data / "eval" / "ner" / "JNLPBA" / "electramed" / "test.txt"
    sentences = [s for s in eval_texts.read(str(path))[1] if len(decontaminate.normalized(s)) >= decontaminate.LONG]
    assert len(sentences) > 2000
    for sentence, article in zip(sentences, abstracts(shared_data), strict=False):
        middle = len(article["text"]) // 2
        text = f"{article['title']}\n{article['text'][:middle]} {sentence} {article['text'][middle:]}"
        assert (1, "sentence") in test_sets.matches(None, text)
