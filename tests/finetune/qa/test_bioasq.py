from __future__ import annotations

import copy
import json
import random

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.qa import bioasq, squad
from electramed_jax.finetune.qa.nbest import Candidate

FILE = {
    "questions": [
        {
            "id": "aa",
            "type": "factoid",
            "body": "Which factor does betrixaban inhibit?",
            "exact_answer": [["Factor Xa", "Xa"]],
            "snippets": [
                {"text": "Betrixaban, like apixaban, inhibits factor XA."},
                {"text": "Apixaban and rivaroxaban block XA."},
                {"text": "It is given by mouth."},
                {"text": "Apixaban and rivaroxaban block XA."},
            ],
        },
        {"id": "bb", "type": "yesno", "body": "Is it?", "exact_answer": "yes"},
        {"id": "cc", "type": "factoid", "body": "Which gene?", "exact_answer": ["TP53"], "snippets": []},
        {"id": "dd", "type": "factoid", "body": "Which drug?", "snippets": [{"text": "Imatinib."}]},
    ]
}


def candidates(*pairs: tuple[str, float]) -> list[Candidate]:
    return [Candidate(text, 0, len(text), 0.0, probability) for text, probability in pairs]


def test_factoid_questions_are_read_with_all_synonyms_in_whatever_year_s_form():
    factoids = bioasq.parse_factoids("f.json", FILE)
    assert [(f.id, f.answers) for f in factoids] == [("aa", ("Factor Xa", "Xa")), ("cc", ("TP53",)), ("dd", ())]
    assert len(factoids[0].snippets) == 3, "each text once"


def test_snippets_with_a_gold_answer_are_trained_on_and_all_are_predicted():
    factoids = bioasq.parse_factoids("f.json", FILE)
    labelled = bioasq.as_questions(factoids, all_snippets=False)
    assert [(q.id, q.answers[0].text) for q in labelled] == [("aa_000", "factor XA"), ("aa_001", "XA")]
    for question in labelled:
        assert squad.answer_matches_context(question.answers[0], question.context)
    assert labelled[1].answers[0].start == 31, "not inside of rivaroxaban"
    predicted = bioasq.as_questions(factoids, all_snippets=True)
    assert [bioasq.question_id(q.id) for q in predicted] == ["aa", "aa", "aa", "dd"]
    assert [question.is_labelled for question in predicted] == [True, True, False, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q: q[0].pop("body"), "f.json: question aa lacks 'body'"),
        (lambda q: q[0].pop("id"), r"f.json: questions\[0\] lacks 'id'"),
        (lambda q: q[2].update(id="aa"), "f.json: question aa occurs twice"),
        (lambda q: q[0].update(exact_answer=[[3]]), "f.json: question aa: 'exact_answer' contains 3"),
        (lambda q: q[0]["snippets"][0].pop("text"), "f.json: question aa: snippet lacks 'text'"),
        (lambda q: q.__delitem__(slice(None)), "f.json: no question of type factoid"),
    ],
)
def test_an_error_names_file_and_question(change, message):
    value = copy.deepcopy(FILE)
    change(value["questions"])
    with pytest.raises(UserError, match=message):
        bioasq.parse_factoids("f.json", value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("p53,", "p53"),
        ("p53.", "p53"),
        ("(p53)", "p53"),
        ("(p53).", "(p53)"),
        ("(a) or (b)", "(a) or (b)"),
        ("p53 (TP53", ""),
        ("p53)", ""),
        ("p53 (TP53)", "p53 (TP53)"),
        ("", ""),
    ],
)
def test_an_answer_is_trimmed_by_the_first_rule_that_applies(text, wanted):
    assert bioasq.clean_answer(text) == wanted


def test_probabilities_of_an_answer_add_up_over_passages_whatever_its_capitals():
    merged = bioasq.merge_passages(
        [
            candidates(("imatinib", 0.4), ("BCR-ABL", 0.35), ("x" * 101, 0.25)),
            candidates(("bcr-abl,", 0.5), ("Imatinib", 0.3), ("(ABL", 0.2)),
        ]
    )
    assert [text for text, _ in merged] == ["bcr-abl", "imatinib"]
    assert [score for _, score in merged] == pytest.approx([0.85, 0.7])
    many = bioasq.merge_passages([candidates(*((f"gene{n}", 0.9 - n / 10) for n in range(9)))])
    assert [text for text, _ in many] == [f"gene{n}" for n in range(5)]


def test_measures_count_the_rank_of_the_first_right_answer():
    gold = {"1": {"TP53", "p53"}, "2": {"EGFR"}, "3": {"ALK"}, "4": {"KIT"}}
    answers = {"1": ["P53", "x"], "2": ["x", "y", "z", "egfr"], "3": ["alk "]}
    assert bioasq.factoid_scores(gold, answers) == pytest.approx(
        {"strict_accuracy": 25.0, "lenient_accuracy": 50.0, "mrr": 100 * (1 + 1 / 4) / 4}
    )
    assert bioasq.factoid_scores({"1": {"a"}}, {"1": ["b", "c", "d", "e", "f", "a"]})["lenient_accuracy"] == 0


def test_the_items_of_a_list_are_matched_once_each_with_any_synonym():
    gold = {"q": [{"p53", "TP53"}, {"BRCA1"}, {"MYC"}], "r": [{"a"}], "s": [{"b"}]}
    scores = bioasq.list_scores(gold, {"q": ["tp53", "P53", "MYC", "KRAS"], "r": ["A"]})
    # q: 2 of 4 are right (P53 is the item that TP53 has taken), 2 of 3 found; r: all; s: not answered
    assert scores == pytest.approx({"precision": 150 / 3, "recall": 500 / 9, "f1": 100 * (4 / 7 + 1) / 3})


def test_list_questions_are_read_by_item_and_each_item_is_trained_on():
    value = {
        "questions": [
            *FILE["questions"],
            {
                "id": "ee", "type": "list", "body": "Which genes?", "exact_answer": [["TP53", "p53"], ["MYC"]],
                "snippets": [{"text": "MYC and p53."}, {"text": "Neither."}],
            },
        ]
    }  # fmt: skip
    (question,) = bioasq.parse_factoids("f.json", value, bioasq.LIST)
    assert bioasq.gold_items([question]) == {"ee": [{"TP53", "p53"}, {"MYC"}]}
    trained = bioasq.as_questions([question], all_snippets=False)
    assert [(one.id, one.answers[0].text) for one in trained] == [("ee_000", "p53"), ("ee_000", "MYC")]
    assert [one.id for one in bioasq.as_questions([question], all_snippets=True)] == ["ee_000", "ee_001"]
    ranked = bioasq.merge_passages([candidates(("MYC", 0.6), ("p53", 0.3), ("and", 0.1))])
    assert bioasq.choose_items(ranked, 0.5) == ["MYC", "p53"]
    submitted = bioasq.to_submission({"ee": ["MYC", "p53"]}, bioasq.LIST)
    assert submitted == {"questions": [{"id": "ee", "type": "list", "exact_answer": [["MYC"], ["p53"]]}]}


def test_a_submission_has_the_organisers_form():
    made = bioasq.to_submission({"aa": ["Xa", "IXa"]})
    assert made == {"questions": [{"id": "aa", "type": "factoid", "exact_answer": [["Xa"], ["IXa"]]}]}


BATCHES = {1: 39, 2: 25, 3: 29, 4: 34, 5: 35}


def golden(shared_data, batch: int) -> dict:
    return json.loads((shared_data / "eval/qa/BioASQ-7b/electramed" / f"7B{batch}_golden.json").read_text("utf-8"))


def test_the_golden_answers_of_7b_score_full_marks_and_shuffled_ones_what_an_independent_count_gives(shared_data):
    rng = random.Random(2)
    pooled_gold, pooled_answers, pooled_ranks = {}, {}, []
    for batch, size in BATCHES.items():
        value = golden(shared_data, batch)
        gold = bioasq.gold_answers(bioasq.parse_factoids(f"7B{batch}", value))
        assert len(gold) == size
        perfect = {number: [min(texts)] for number, texts in gold.items()}
        assert set(bioasq.factoid_scores(gold, perfect).values()) == {100.0}
        everything = sorted(text for texts in gold.values() for text in texts)
        answers = {}
        ranks = []
        for question in value["questions"]:
            if question["type"] == "factoid":
                offered = [*rng.sample(everything, 3), question["exact_answer"][0][-1].upper()]
                rng.shuffle(offered)
                answers[question["id"]] = offered
                right = [t.lower() for synonyms in question["exact_answer"] for t in synonyms]
                ranks.append(next(place for place, text in enumerate(offered, 1) if text.lower() in right))
        found = bioasq.factoid_scores(gold, answers)
        assert found["mrr"] == pytest.approx(100 * sum(1 / rank for rank in ranks) / size)
        assert found["strict_accuracy"] == pytest.approx(100 * ranks.count(1) / size)
        assert found["lenient_accuracy"] == 100.0
        pooled_gold |= gold
        pooled_answers |= answers
        pooled_ranks += ranks
    assert len(pooled_gold) == 162
    pooled = bioasq.factoid_scores(pooled_gold, pooled_answers)
    assert pooled["mrr"] == pytest.approx(100 * sum(1 / rank for rank in pooled_ranks) / 162)
    without_one = dict(list(pooled_answers.items())[1:])
    assert bioasq.factoid_scores(pooled_gold, without_one)["lenient_accuracy"] == pytest.approx(100 * 161 / 162)


@pytest.mark.slow
def test_the_organisers_training_questions_become_the_snippet_set_rebuilt_from_them(shared_data):
    folder = shared_data / "eval/qa/BioASQ-7b/rebuilt"
    path = str(folder / "training7b-reconstructed.json.gz")
    ours = bioasq.as_questions(bioasq.parse_factoids(path, squad.load_json(path)), all_snippets=False)
    path = str(folder / "BioASQ-train-factoid-7b-snippet.json")
    theirs = squad.parse_squad(path, squad.load_json(path)).questions
    passages = [{(bioasq.question_id(q.id), q.context) for q in questions} for questions in (ours, theirs)]
    assert passages[0] == passages[1] and len(ours) == len(passages[0]) == 4306
