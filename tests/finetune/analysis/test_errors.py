"""The list of errors counts each wrong entity, label and answer once."""

from __future__ import annotations

from electramed_jax.finetune.analysis import errors

SENTENCE = {
    "line": 3,
    "words": ["severe", "chronic", "gastritis", "and", "atenolol", "or", "water"],
    "gold": [[0, 3, "Disease"], [4, 5, "Drug"]],
    "predicted": [[1, 3, "Disease"], [4, 5, "Disease"], [6, 7, "Drug"]],
}


def test_entities_are_missed_spurious_or_wrong_in_type_or_border():
    assert [name for name, _, _ in errors.list_errors("ner", [SENTENCE])] == ["wrong border", "wrong type", "spurious"]
    missed = SENTENCE | {"predicted": []}
    assert [name for name, _, _ in errors.list_errors("ner", [missed])] == ["missed", "missed"]
    assert not list(errors.list_errors("ner", [SENTENCE | {"predicted": SENTENCE["gold"]}]))
    text = errors.to_markdown("ner", [SENTENCE, missed], "Errors", limit=1)
    assert "2 of 2 examples have an error" not in text, "both are of line 3"
    assert "| missed | 2 |" in text and "## missed (2, the first 1 of them)" in text
    assert "Disease 'severe chronic gastritis' in: \\[ severe chronic gastritis \\] and atenolol or water" in text


def test_labels_and_answers_are_listed_with_what_was_wanted():
    record = {"line": 2, "text": "a <b> text", "gold": ["CPR:3"], "predicted": ["false"]}
    text = errors.to_markdown("relations", [record, record | {"line": 5, "predicted": ["CPR:3"]}], "Errors", 9)
    assert "1 of 2 examples have an error." in text and "| CPR:3 predicted as false | 1 |" in text
    assert "- line 2: a &lt;b&gt; text" in text
    question = {"id": "q1", "question": "Which gene?", "gold": ["p53"], "predicted": "", "exact_match": 0.0}
    (found,) = errors.list_errors("qa", [question, question | {"predicted": "p53", "exact_match": 100.0}])
    assert found == ("wrong answer", "question q1", "Which gene? Wanted p53; got no answer")
