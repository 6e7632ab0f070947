"""Confusion matrices equal scikit-learn's and seqeval's counts; the list of errors marks what is gold and predicted."""

from __future__ import annotations

import random

import invented_finetuned
import pytest
from lxml import html
from sklearn.metrics import confusion_matrix

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.task import result_files
from electramed_jax.report.predictions import confusion, error_list
from electramed_jax.report.predictions.cards import prediction_cards

LABELS = ["CPR:3", "CPR:4", "false"]


def table_of(markup: str) -> list[list[str]]:
    return [[cell.text_content() for cell in row] for row in html.fromstring(markup).iter("tr")]


def test_the_matrix_of_labels_equals_that_of_scikit_learn():
    rng = random.Random(0)
    gold, predicted = (rng.choices(LABELS, k=200) for _ in range(2))
    records = [{"line": 1, "text": "", "gold": [a], "predicted": [b]} for a, b in zip(gold, predicted, strict=True)]
    pairs = confusion.count_pairs("relations", records)
    wanted = confusion_matrix(gold, predicted, labels=LABELS)
    assert [[pairs[a, b] for b in LABELS] for a in LABELS] == wanted.tolist()
    shown = table_of(confusion.render(pairs, "title"))
    order = shown[0][1:-1]
    assert {row[0]: dict(zip(order, map(int, row[1:-1]), strict=True)) for row in shown[1:]} == {
        a: {b: int(wanted[LABELS.index(a), LABELS.index(b)]) for b in LABELS} for a in LABELS
    }


def test_an_entity_is_found_of_another_type_of_another_border_or_missed():
    pairs = confusion.count_pairs(
        "ner", [invented_finetuned.RIGHT, invented_finetuned.WRONG, invented_finetuned.MISSED]
    )
    assert pairs == {
        ("Disease", "Disease"): 1, ("Chemical", "Chemical"): 4, ("Disease", "other border"): 1,
        ("Chemical", "Disease"): 1, ("Chemical", "no entity"): 1, ("no entity", "Chemical"): 1, ("Disease", "no entity"): 1,
    }  # fmt: skip
    gold = [entity for record in (invented_finetuned.RIGHT, invented_finetuned.WRONG, invented_finetuned.MISSED)
            for entity in record["gold"]]  # fmt: skip
    for kind in ("Disease", "Chemical"):
        assert sum(count for (label, _), count in pairs.items() if label == kind) == sum(e[2] == kind for e in gold)


def test_of_several_labels_those_that_are_right_are_paired_with_themselves():
    record = {"line": 1, "text": "", "gold": ["a", "b"], "predicted": ["b", "c", "d"]}
    assert confusion.count_pairs("multilabel", [record]) == {
        ("b", "b"): 1, ("a", "no label"): 1, ("no label", "c"): 1, ("no label", "d"): 1,
    }  # fmt: skip
    assert not confusion.count_pairs("similarity", [record]) and not confusion.count_pairs("qa", [record])


def test_the_words_of_an_entity_are_marked_with_gold_and_predicted_type():
    (wrong,) = error_list.wrong_examples("ner", [invented_finetuned.RIGHT, invented_finetuned.WRONG])
    assert wrong.kinds == ("wrong border", "wrong type", "missed", "spurious") and wrong.place == "line 14"
    marks = [(m.get("class"), m.text, m[0].text) for m in html.fromstring(f"<p>{wrong.body}</p>").find_class("swap")]
    assert marks == [
        ("swap missed", "Severe", "Disease"),
        ("swap found", "chronic gastritis", "Disease"),
        ("swap missed", "atenolol", "Chemical → Disease"),
        ("swap found", "<b>aspirin</b>", "Chemical"),
        ("swap false", "water", "Chemical"),
        ("swap missed", "lithium", "Chemical"),
    ]
    assert (
        html.fromstring(f"<p>{wrong.body}</p>")
        .text_content()
        .startswith("SevereDisease chronic gastritisDisease after")
    )


def test_labels_answers_and_numbers_are_marked_and_escaped():
    def body(kind: str, **record: object) -> str:
        (wrong,) = error_list.wrong_examples(kind, [{"line": 2, "id": "q"} | record])
        assert "<i>" not in wrong.body
        return html.fromstring(f"<p>{wrong.body}</p>").text_content()

    assert body("relations", text="a <i> b", gold=["CPR:3"], predicted=["<i>"]) == "a <i> bCPR:3 <i>"
    assert body("qa", question="Which <i>?", gold=[], predicted="p53", exact_match=0.0) == "Which <i>?no answer p53"
    numbers = [{"line": n, "text": "a", "second": "b", "gold": [1.0], "predicted": [1.0 + n]} for n in (1, 3)]
    assert [one.place for one in error_list.wrong_examples("similarity", numbers)] == ["line 3", "line 1"]


def test_the_cards_are_of_the_best_seed_and_damaged_records_are_one_line(tmp_path):
    workdir = invented_finetuned.write(tmp_path / "ncbi")
    results = result_files.read_results(f"{workdir}/results.json")
    matrix, errors = prediction_cards("ncbi", workdir, results)
    assert "seed 4 on dev" in matrix and "2 of 3 examples have an error." in errors
    (tmp_path / "ncbi" / "seed-4" / "records-dev.jsonl").write_text('{"line": 1}\n')
    with pytest.raises(UserError, match="records of seed 4 on dev are not those of ner"):
        prediction_cards("ncbi", workdir, results)
    (tmp_path / "ncbi" / "seed-4" / "records-dev.jsonl").unlink()
    with pytest.raises(UserError, match="no such file"):
        prediction_cards("ncbi", workdir, results)
