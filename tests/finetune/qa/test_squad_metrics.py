from __future__ import annotations

import random

import pytest

from electramed_jax.finetune.qa import squad_metrics
from electramed_jax.finetune.qa.squad import Answer, Question

WORDS = [
    "the",
    "a",
    "An",
    "BCR-ABL",
    "bcr-abl.",
    "p53",
    "P53",
    "(IL-2)",
    "β-catenin",
    "theta",
    "kinase,",
    "-",
    "a.b",
    "–the–",
]


def random_text(rng: random.Random, fewest: int) -> str:
    return rng.choice([" ", "  ", "\n"]).join(rng.choices(WORDS, k=rng.randrange(fewest, 6)))


def random_cases(count: int) -> tuple[list[Question], dict[str, str]]:
    rng = random.Random(11)
    questions = []
    for number in range(count):
        # at least one word with letters: where nothing is left of a gold answer the two versions' scripts differ
        golds = [f"kinase {random_text(rng, 0)}" for _ in range(rng.randrange(1, 4))]
        questions.append(Question(str(number), "?", "...", tuple(Answer(gold, 0) for gold in golds)))
    given = {question.id: rng.choice([random_text(rng, 1), question.answers[0].text.upper()]) for question in questions}
    return questions, given


@pytest.mark.slow
def test_exact_match_and_f1_are_those_of_torchmetrics_on_random_answers():
    from torchmetrics.functional.text import squad

    questions, given = random_cases(400)
    for question in questions:
        theirs = squad(
            [{"prediction_text": given[question.id], "id": question.id}],
            [{"answers": {"text": [a.text for a in question.answers], "answer_start": [0]}, "id": question.id}],
        )
        ours = squad_metrics.squad_scores([question], given)
        assert ours == pytest.approx({name: float(value) for name, value in theirs.items()}, rel=1e-6), question
    exact = [squad_metrics.squad_scores([question], given)["exact_match"] for question in questions]
    assert 20 < sum(exact) / len(exact) < 80, "both outcomes occur"


@pytest.mark.parametrize(
    ("answer", "gold", "exact", "f1"),
    [
        ("the BCR-ABL kinase", "bcrabl kinase!", 1.0, 1.0),
        ("BCR-ABL kinase", "kinase", 0.0, 2 / 3),
        ("kinase kinase", "kinase", 0.0, 2 / 3),
        ("theta", "the ta", 0.0, 0.0),
        ("", "", 1.0, 1.0),
        ("the", "", 1.0, 1.0),
        ("kinase", "", 0.0, 0.0),
    ],
)
def test_the_official_normalisation_in_cases_that_can_be_checked_by_hand(answer, gold, exact, f1):
    assert squad_metrics.exact_match(answer, gold) == exact
    assert squad_metrics.f1(answer, gold) == pytest.approx(f1)


def test_impossible_questions_are_correct_if_unanswered_and_scored_separately():
    questions = [
        Question("1", "?", "c", (Answer("kinase", 0),)),
        Question("2", "?", "c", impossible=True),
        Question("3", "?", "c", impossible=True),
        Question("4", "?", "c", (Answer("p53", 0),)),
    ]
    found = squad_metrics.squad_scores(questions, {"1": "kinase", "2": "", "3": "kinase"})
    assert found == pytest.approx(
        {
            "exact_match": 50.0,
            "f1": 50.0,
            "has_answer_exact_match": 50.0,
            "has_answer_f1": 50.0,
            "no_answer_exact_match": 50.0,
            "no_answer_f1": 50.0,
        }
    )
