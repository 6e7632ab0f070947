from __future__ import annotations

import gzip
import json
import random

import pytest

from electramed_jax.data.corpus import decontaminate, eval_texts
from electramed_jax.data.readers.document import parse_positive_int

# 86 letters and digits, as in a tokenized corpus and as in an article.
LONG = (
    "In 24 healthy volunteers , zolamine ( 5 mg / kg ) lowered blood pressure - but not the heart rate - "
    "within two hours ."
)
AS_PUBLISHED = (
    "In 24 healthy volunteers, ZOLAMINE (5\u00a0mg/kg) lowered blood\npressure — but not the heart rate — "
    "within two hours."
)
SHORT = [
    "The authors have no conflict of interest that they wish to declare .",
    "All of the patients gave their written consent before they took part .",
    "A value of p below 0.05 was taken to be statistically significant .",
]


def build(*passages: str, pmids: set[int] = frozenset()) -> decontaminate.EvaluationIndex:
    """Returns the index of one evaluation file."""
    return decontaminate.build_index([(set(pmids), list(passages))])


def test_a_long_sentence_is_found_with_any_spaces_punctuation_and_case():
    index = build(LONG)
    assert index.matches(None, f"A title\nBefore it. {AS_PUBLISHED} After it.") == [(0, "sentence")]
    assert index.matches(None, AS_PUBLISHED) == [(0, "sentence")]
    assert index.matches(None, AS_PUBLISHED.replace("two hours", "2 hours")) == []


@pytest.mark.parametrize(
    ("sentence", "rewritten"),
    [
        (
            "TNF-alpha, beta 2 and Delta9 of the kappa B sites",
            "TNF-\u03b1, \u03b2\u2082 and \u03949 of the \u03ba B sites",
        ),
        (
            "a naive Sjogren reaction of the Muller cells, oesophagus",
            "a na\u00efve Sj\u00f6gren reaction of the Mu\u0308ller cells, \u0153sophagus",
        ),
        (
            "long-term follow-up (10-20 years) of the patient's",
            "long\u2010term follow\u2011up (10\u201320 years) of the patient\u2019s",
        ),
        (
            "the final 5 mug/ml affinity of CO2 in sigmaS",
            "the \ufb01nal 5 \u00b5g/ml a\ufb03nity of CO\u2082 in \u03c2S",
        ),
        ("beta-lactam and beta-blockers", "\u00df-lactam and \u03b2-blockers"),
    ],
)
def test_a_sentence_is_found_with_other_spellings_of_its_letters(sentence, rewritten):
    sentence, rewritten = (
        f"Here {text} was seen in all groups of the long invented study of it." for text in (sentence, rewritten)
    )
    assert decontaminate.normalize(sentence) == decontaminate.normalize(rewritten)
    long = f"{sentence} And so on, for as long as a sentence has to be to count alone, and longer."
    for one, other in ((sentence, rewritten), (rewritten, sentence)):
        index = build(long.replace(sentence, one)[:-1])
        assert index.matches(None, f"Before. {long.replace(sentence, other)} After.") == [(0, "sentence")]


def test_a_match_needs_80_letters_and_digits_or_three_sentences_of_48():
    letters = decontaminate.normalize(LONG).decode()
    assert build(letters[:80]).matches(None, letters) == [(0, "sentence")]
    assert build(letters[:79]).matches(None, letters) == []
    assert build(letters[:47], letters[40:70]).matches(None, letters) == []
    text = " Or so. ".join(SHORT)
    assert build(*SHORT).matches(None, text) == [(0, "sentence")]
    assert build(*SHORT[:2], SHORT[2][:30]).matches(None, text) == []


def test_short_sentences_count_only_at_disjoint_positions():
    letters = decontaminate.normalize(LONG).decode()
    overlapping = build(*(letters[start : start + 50] for start in range(20)))
    assert overlapping.matches(None, letters) == []
    assert overlapping.matches(None, " ".join([letters] * 3)) == [(0, "sentence")]


def test_matches_list_each_evaluation_file_and_the_kind_of_match():
    index = decontaminate.build_index([({7}, [LONG]), (set(), [LONG]), ({7, 8}, []), (set(), SHORT[:2])])
    assert index.matches(7, AS_PUBLISHED) == [(0, "pmid"), (2, "pmid"), (1, "sentence")]
    assert index.matches(8, "Another text.") == [(2, "pmid")]
    assert index.matches(6, "Another text.") == index.matches(None, "") == []
    assert index.count_by_file(4) == [
        {"pmids": 1, "sentences": 1},
        {"pmids": 0, "sentences": 1},
        {"pmids": 2, "sentences": 0},
        {"pmids": 0, "sentences": 2},
    ]


def test_a_saved_index_finds_the_same(tmp_path):
    path = str(tmp_path / "index.npz")
    build(LONG, pmids={7}).save(path)
    loaded = decontaminate.load_index(path)
    assert loaded.matches(7, "") == [(0, "pmid")] and loaded.matches(None, AS_PUBLISHED) == [(0, "sentence")]


def test_an_index_may_have_no_sentences_or_no_pmids():
    assert build(pmids={7}).matches(8, AS_PUBLISHED) == []
    assert build("Short.").matches(8, AS_PUBLISHED) == []


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_the_sentences_that_a_full_search_finds_and_no_other(seed):
    draw = random.Random(seed)
    text = "".join(draw.choices("ab", k=4000))  # two letters, so that many windows are equal
    sentences = [text[start : start + draw.randrange(80, 120)] for start in draw.choices(range(3900), k=40)]
    sentences += ["".join(draw.choices("ab", k=85)) for _ in range(40)]
    parts = [text[start : start + 1500] for start in range(0, 4000, 250)]
    for number, sentence in enumerate(sentences):
        index = decontaminate.build_index([(set(), [sentence])])
        for part in parts[number % 4 :: 4]:
            assert bool(index.matches(None, part)) == (sentence in part)


@pytest.fixture(scope="module")
def test_sets(shared_data) -> decontaminate.EvaluationIndex:
    folder = shared_data / "eval"
    patterns = ("ner/*/electramed/test.txt", "qa/*/electramed/*.json", "re/*/*/test.csv")
    return decontaminate.read_index(str(path) for pattern in patterns for path in sorted(folder.glob(pattern)))


def abstracts(shared_data) -> list[dict]:
    with gzip.open(shared_data / "corpus" / "abstracts-pmc-000.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_decontaminated_corpus_has_no_matches(shared_data, test_sets):
    articles = abstracts(shared_data)
    found = [test_sets.matches(parse_positive_int(a.get("pmid")), f"{a['title']}\n{a['text']}") for a in articles]
    assert len(found) > 4000 and not any(found)


def test_every_long_sentence_of_the_test_sets_is_found_when_inserted_into_an_article(shared_data, test_sets):
    path = shared_data / "eval" / "ner" / "JNLPBA" / "electramed" / "test.txt"
    sentences = [
        s for s in eval_texts.read_passages(str(path))[1] if len(decontaminate.normalize(s)) >= decontaminate.LONG_CHARS
    ]
    assert len(sentences) > 2000
    for sentence, article in zip(sentences, abstracts(shared_data), strict=False):
        middle = len(article["text"]) // 2
        text = f"{article['title']}\n{article['text'][:middle]} {sentence} {article['text'][middle:]}"
        assert (1, "sentence") in test_sets.matches(None, text)
