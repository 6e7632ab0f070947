from __future__ import annotations

import copy
import gzip
import json

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.qa import squad

CONTEXT = "Imatinib inhibits BCR-ABL. β-Catenin is not a target of imatinib."
GOOD = {
    "version": "v2.0",
    "data": [
        {
            "title": "invented",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "What does imatinib inhibit?",
                            "answers": [{"text": "BCR-ABL", "answer_start": 18}, {"text": "ABL", "answer_start": 22}],
                            "is_impossible": False,
                        },
                        {
                            "id": "q2",
                            "question": "What inhibits β-catenin?",
                            "answers": [],
                            "plausible_answers": [{"text": "imatinib", "answer_start": 56}],
                            "is_impossible": True,
                        },
                        {"id": "q3", "question": "What is no target?"},
                    ],
                }
            ],
        }
    ],
}


def write(folder, value) -> str:
    path = folder / "questions.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def read(path: str, **options) -> squad.SquadFile:
    return squad.parse_squad(path, squad.load_json(path), **options)


def test_answers_are_at_their_offsets_and_flags_are_kept(tmp_path):
    answered, impossible, unlabelled = read(write(tmp_path, GOOD)).questions
    assert [answer.text for answer in answered.answers] == ["BCR-ABL", "ABL"]
    assert [CONTEXT[answer.start : answer.stop] for answer in answered.answers] == ["BCR-ABL", "ABL"]
    assert impossible.impossible and impossible.answers == () and impossible.is_labelled
    assert not unlabelled.impossible and not unlabelled.is_labelled


def test_a_gzipped_file_reads_the_same(tmp_path):
    plain = write(tmp_path, GOOD)
    packed = tmp_path / "questions.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert read(str(packed)) == read(plain)


def test_an_answer_that_is_elsewhere_is_an_error_or_left_out_and_counted(tmp_path):
    value = copy.deepcopy(GOOD)
    value["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 17
    path = write(tmp_path, value)
    with pytest.raises(UserError, match=r"questions.json: question q1: answer 'BCR-ABL': answer_start is 17.*is at 18"):
        read(path)
    kept = read(path, drop_mismatched=True)
    assert [answer.text for answer in kept.questions[0].answers] == ["ABL"] and kept.dropped == []
    del value["data"][0]["paragraphs"][0]["qas"][0]["answers"][1]
    kept = read(write(tmp_path, value), drop_mismatched=True)
    assert [question.id for question in kept.questions] == ["q2", "q3"] and kept.dropped == ["q1"]


def changed(change) -> dict:
    value = copy.deepcopy(GOOD)
    change(value["data"][0]["paragraphs"][0])
    return value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("context"), r"data\[0\].paragraphs\[0\] lacks 'context'; it has 'qas'"),
        (lambda p: p["qas"][0].pop("id"), r"paragraphs\[0\].qas\[0\] lacks 'id'"),
        (lambda p: p["qas"][1].update(question=3), "question q2: 'question' is 3; wanted a string"),
        (lambda p: p["qas"][1].update(question=" "), "question q2: its question is empty"),
        (lambda p: p.update(context=""), "question q1: its context is empty"),
        (lambda p: p["qas"][0].update(answers="yes"), "question q1: its answer is the word 'yes'; yes/no questions"),
        (lambda p: p["qas"][0]["answers"][0].pop("answer_start"), "question q1: answer lacks 'answer_start'"),
        (lambda p: p["qas"][0]["answers"][0].update(answer_start=-5), "question q1: .* answer_start is -5"),
        (lambda p: p["qas"][0]["answers"][0].update(answer_start="18"), "'answer_start' is '18'; wanted a whole"),
        (lambda p: p["qas"][0]["answers"][0].update(text=""), "question q1: answer '': .* does not contain"),
        (lambda p: p["qas"][0].update(is_impossible=True), "question q1: is_impossible is true, but it has 2 answers"),
        (lambda p: p["qas"][1].update(is_impossible="yes"), "question q2: 'is_impossible' is 'yes'; wanted true or"),
        (lambda p: p["qas"][1].update(id="q1"), "question q1 occurs twice"),
        (lambda p: p.update(qas=[]), r"no question \(0 dropped\)"),
        (lambda p: p.update(qas=["q1"]), r"qas\[0\]: got 'q1'; wanted an object with 'id'"),
    ],
)
def test_an_error_names_file_and_question(tmp_path, change, message):
    path = write(tmp_path, changed(change))
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b'{"data": [\n{"paragraphs": }]}', "line 2, column 16: not valid JSON"),
        (b"\xff\xfe{}", r"not UTF-8 text \(byte 0\)"),
        (b"\x1f\x8b\x08\x00broken", "gzip data is damaged"),
        (b"[]", "wanted an object with 'data'"),
    ],
)
def test_an_error_of_invalid_json_names_the_line(tmp_path, content, message):
    path = tmp_path / "questions.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read(str(path))
    assert str(error.value).startswith(str(path))


@pytest.mark.slow
def test_every_answer_of_the_bioasq_files_is_at_its_offset(shared_data):
    folder = shared_data / "eval" / "qa" / "BioASQ-7b"
    counts = {}
    for name in ("rebuilt/BioASQ-train-factoid-7b-snippet", "huggingBioASQ/val/BioASQ-val-factoid"):
        questions = read(str(folder / f"{name}.json")).questions
        counts[name] = (len(questions), sum(len(question.answers) for question in questions))
    assert list(counts.values()) == [(4595, 4595), (553, 553)]
