from __future__ import annotations

import json
import pathlib
import re

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa import bioasq, splits
from electramed_jax.finetune.qa.task import QaTask
from electramed_jax.finetune.qa.windows import WindowConfig

SMALL = WindowConfig(max_seq_length=32, doc_stride=8, max_query_length=12)
FILLER = "the cell was kept in the dark and then it was seen to grow again and again "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Tokenizer:
    path = str(tmp_path_factory.mktemp("vocab") / "vocab.txt")
    words = sorted({*FILLER.split(), "which", "gene", "drug", "blocks", "does", "bind", "?", ".", "(", ")"})
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    vocab.write_vocab(path, [*vocab.SPECIAL_TOKENS, *words, *letters, *(f"##{x}" for x in letters)])
    return Tokenizer(path)


def passage(identifier: str, question: str, answer: str, before: str = "", marked: bool = True) -> dict:
    """A paragraph with one question; the answer follows `before` in running text."""
    context = f"{before or FILLER}{answer} {FILLER}."
    qa = {"id": identifier, "question": question}
    if marked:
        qa["answers"] = [{"text": answer, "answer_start": context.index(answer)}]
    return {"context": context, "qas": [qa]}


def write(folder, name: str, *paragraphs: dict) -> list[str]:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": list(paragraphs)}]}))
    return [str(path)]


def golden(folder, name: str, **answers: list[str]) -> str:
    """A BioASQ golden file: by question id, an answer and its synonyms."""
    made = [{"id": i, "type": "factoid", "body": "?", "exact_answer": [texts]} for i, texts in answers.items()]
    path = folder / f"{name}_golden.json"
    path.write_text(json.dumps({"questions": made}))
    return str(path)


def pointing(qa: QaTask, split: str, height: float = 20.0) -> list[np.ndarray]:
    """Logits of a model that predicts the labels."""
    outputs = []
    made = qa.examples(split)
    for ids, (start, end) in zip(made.input_ids, made.labels, strict=True):
        logits = np.zeros((len(ids), 2), np.float32)
        logits[start, 0] = logits[end, 1] = height
        outputs.append(logits)
    return outputs


def pointing_at(qa: QaTask, split: str, tokenizer: Tokenizer, texts: dict[str, str]) -> list[np.ndarray]:
    """Logits of a model that finds the first place of `texts[question id]` in every window that has it."""
    outputs = []
    for ids, window in zip(qa.examples(split).input_ids, qa._windows[split], strict=True):
        logits = np.zeros((len(ids), 2), np.float32)
        question = qa._splits[split].questions[window.question]
        text = texts.get(bioasq.question_id(question.id), "")
        begin = question.context.lower().find(text.lower())
        starts = np.flatnonzero(window.offsets[:, 0] == begin)
        stops = np.flatnonzero(window.offsets[:, 1] == begin + len(text))
        if text and len(starts) and len(stops):
            logits[window.first + starts[0], 0] = logits[window.first + stops[0], 1] = 20
        outputs.append(logits)
    return outputs


ODD_TEXTS = {
    "right-to-left mark": "\u05d0\u200f \u202egene\u202c",
    "emoji sequence": "\U0001f469\u200d\U0001f52c\U0001f3fd tested \U0001f9ec",
    "combining characters": "d\u0308o\u0301se e\u0301\u0323",
    "NUL, tabs and line ends": "dose\0 \t of\r\n1 \u00a0mg\u2028",
    "half a surrogate pair": "gene \ud83e here",
    "no blank": "acgt" * 30_000,
}


@pytest.mark.parametrize("odd", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_answers_are_found_at_their_characters_beside_odd_text(odd, tmp_path, tokenizer):
    train = write(tmp_path, "train", passage("t1", "which gene ?", "tp53"))
    dev = write(tmp_path, "dev", passage("d1", f"which drug {odd[:3]} ?", "imatinib", f"{odd} ({FILLER}"))
    qa = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL)
    assert qa.score("dev", pointing(qa, "dev")) == {"exact_match": 100.0, "f1": 100.0}
    assert json.loads(qa.predictions("dev", pointing(qa, "dev")))["d1"] == "imatinib"


def test_logits_at_the_labels_give_full_marks_over_many_windows(tmp_path, tokenizer):
    train = write(tmp_path, "train", passage("t1", "which gene ?", "tp53"))
    dev = write(
        tmp_path,
        "dev",
        passage("d1", "which drug blocks abl ?", "imatinib", FILLER * 4),
        passage("d2", "which gene does it bind ?", "kras", FILLER * 3),
    )
    qa = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL)
    assert len(qa.examples("dev")) > 8 and max(map(len, qa.examples("dev").input_ids)) <= SMALL.max_seq_length
    assert qa.score("dev", pointing(qa, "dev")) == {"exact_match": 100.0, "f1": 100.0}
    assert json.loads(qa.predictions("dev", pointing(qa, "dev"))) == {"d1": "imatinib", "d2": "kras"}
    assert qa.primary in qa.score("dev", pointing(qa, "dev"))


def test_impossible_questions_are_left_unanswered_at_the_threshold(tmp_path, tokenizer):
    paragraph = passage("t1", "which gene ?", "tp53")
    paragraph["qas"].append({"id": "t2", "question": "which drug ?", "answers": [], "is_impossible": True})
    train = write(tmp_path, "train", paragraph)
    paragraph["context"] = "it was seen: " + paragraph["context"]
    paragraph["qas"][0]["answers"][0]["answer_start"] += len("it was seen: ")
    dev = write(tmp_path, "dev", paragraph)
    qa = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL)
    assert json.loads(qa.predictions("dev", pointing(qa, "dev"))) == {"t1": "tp53", "t2": ""}
    assert qa.score("dev", pointing(qa, "dev"))["no_answer_exact_match"] == 100.0
    bold = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL, null_threshold=50.0)
    assert json.loads(bold.predictions("dev", pointing(bold, "dev")))["t2"] != ""


def test_windows_without_the_answer_are_trained_to_point_at_cls_or_left_out(tmp_path, tokenizer):
    train = write(tmp_path, "train", passage("t1", "which gene ?", "tp53", FILLER * 4))
    dev = write(tmp_path, "dev", passage("d1", "which drug ?", "imatinib"))
    quiet = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL).examples("train")
    assert {tuple(label) for label in quiet.labels} > {(0, 0)}
    kept = QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL, windows_without_answer="drop").examples(
        "train"
    )
    assert 0 < len(kept) < len(quiet) and all(label[0] > 0 for label in kept.labels)


def bioasq_files(folder) -> dict[str, list[str]]:
    return {
        "train": write(
            folder, "train", passage("aa_000", "which gene ?", "tp53"), passage("bb_000", "which ?", "kras")
        ),
        "dev": write(folder, "dev", passage("cc_000", "which drug ?", "imatinib")),
        "test": [
            *write(
                folder,
                "batch1",
                passage("dd_000", "which drug blocks ?", "Imatinib", FILLER * 2, marked=False),
                passage("dd_001", "which drug blocks ?", "imatinib", marked=False),
            ),
            *write(folder, "batch2", passage("ee_000", "does it bind ?", "egfr", marked=False)),
        ],
    }


def test_answers_of_all_passages_are_merged_and_scored_for_each_batch_and_pooled(tmp_path, tokenizer):
    gold = [
        golden(tmp_path, "7B1", dd=["STI571", "IMATINIB"], ff=["nowhere"]),
        golden(tmp_path, "7B2", ee=["alk"]),
    ]
    qa = QaTask(bioasq_files(tmp_path), tokenizer, windowing=SMALL, measures="bioasq", gold=gold)
    assert qa.primary == "mrr"
    outputs = pointing_at(qa, "test", tokenizer, {"dd": "imatinib", "ee": "egfr"})
    scores = qa.score("test", outputs)
    assert scores["strict_accuracy"] == pytest.approx(100 / 3), "a question without a passage counts as wrong"
    assert (scores["mrr_7B1"], scores["strict_accuracy_7B1"], scores["mrr_7B2"]) == (50.0, 50.0, 0.0)
    assert scores["mrr_mean_of_batches"] == 25.0
    handed_in = {q["id"]: q["exact_answer"] for q in json.loads(qa.predictions("test", outputs))["questions"]}
    assert set(handed_in) == {"dd", "ee", "ff"} and handed_in["ff"] == []
    assert handed_in["dd"][0][0].lower() == "imatinib" and len(handed_in["dd"]) <= 5
    assert "1 gold questions without a passage" in qa.summary_lines()[-1]
    sizes = qa.data_summary()["sizes"]["test"]
    assert [sizes[name] for name in ("questions", "passages", "gold", "attainable")] == [2, 3, 3, 1]
    assert "a passage contains a gold answer for 1 of 3 questions" in qa.summary_lines()[-1]
    assert set(qa.data_summary()["files"]) == {"train", "dev", "test 1", "test 2", "gold 1", "gold 2"}


def test_the_organisers_own_file_is_a_test_set_of_its_snippets(tmp_path, tokenizer):
    value = {
        "questions": [
            {
                "id": "dd",
                "type": "factoid",
                "body": "which drug blocks ?",
                "exact_answer": [["imatinib"]],
                "snippets": [{"text": f"{FILLER}imatinib ."}, {"text": FILLER}],
            }
        ]
    }
    (tmp_path / "7B1_golden.json").write_text(json.dumps(value))
    paths = bioasq_files(tmp_path) | {"test": [str(tmp_path / "7B1_golden.json")]}
    qa = QaTask(paths, tokenizer, windowing=SMALL, measures="bioasq")
    assert qa.data_summary()["sizes"]["test"]["passages"] == 2
    assert qa.score("test", pointing(qa, "test"))["strict_accuracy"] == 100.0


def test_nothing_that_is_measured_on_is_trained_on(tmp_path, tokenizer):
    files = bioasq_files(tmp_path)
    files["train"] = write(
        tmp_path,
        "train",
        passage("aa_000", "which gene ?", "tp53"),
        passage("dd_007", "some other words ?", "kras"),  # a question of the test set by its id, over another passage
        passage("zz_000", "Which  DRUG ?", "kras"),  # one of the dev set by its words
    )
    gold = [golden(tmp_path, "7B1", dd=["imatinib"], ee=["egfr"])]
    qa = QaTask(files, tokenizer, windowing=SMALL, measures="bioasq", gold=gold)
    assert qa.data_summary()["sizes"]["train"]["passages"] == 1
    assert qa.data_summary()["sizes"]["train"]["left_out_asked_elsewhere"] == 2
    assert "2 passages left out because their question is in dev or test" in qa.summary_lines()[0]
    squad = QaTask({"train": files["train"], "dev": files["dev"]}, tokenizer, windowing=SMALL)
    assert squad.data_summary()["sizes"]["train"]["passages"] == 3, "in SQuAD other passages make other questions"
    with pytest.raises(UserError, match="all its questions are in dev or test"):
        QaTask({"train": files["dev"], "dev": files["dev"]}, tokenizer, windowing=SMALL)


def test_questions_of_several_splits_and_impossible_ones_are_warned_about(tmp_path, tokenizer):
    train = write(tmp_path, "train", passage("t1", "which gene ?", "tp53"), passage("t2", "which drug ?", "abl"))
    dev = write(tmp_path, "dev", passage("d1", "Which  gene ?", "tp53"))
    impossible = passage("x1", "does it bind ?", "kras") | {
        "qas": [{"id": "x1", "question": "does it bind ?", "answers": [], "is_impossible": True}]
    }
    test = write(tmp_path, "test", passage("e1", "which gene ?", "tp53"), impossible)
    qa = QaTask({"train": train, "dev": dev, "test": test}, tokenizer, windowing=SMALL, primary="exact_match")
    assert qa.primary == "exact_match"
    assert qa.data_warnings() == [
        "1 passages of train are left out because their question is in dev or test",
        "1 of 2 test questions (50.00%) are in dev too: scores of test may be too high",
        "1 of 2 questions of test have no answer, but every question of train has: a model does not learn when not to "
        "answer",
    ]
    same = QaTask({"train": train[:1], "dev": dev, "test": dev}, tokenizer, windowing=SMALL).data_warnings()
    assert any(line.startswith("dev and test are the same file") and "chose the checkpoint" in line for line in same)
    with pytest.raises(UserError, match="config.task.primary='mrr': not a score of this task; wanted one of f1, exact"):
        QaTask({"train": train, "dev": dev}, tokenizer, windowing=SMALL, primary="mrr")


def test_a_held_out_question_takes_all_its_passages_along_and_stays_held_out_as_the_file_grows(tmp_path, tokenizer):
    def many(count: int) -> QaTask:
        made = [passage(f"q{n}_{k:03d}", f"which gene {n} ?", "tp53") for n in range(count) for k in range(3)]
        train = write(tmp_path, "train", *made)
        return QaTask({"train": train}, tokenizer, windowing=SMALL, measures="bioasq", dev_fraction=0.2)

    def ids(qa: QaTask, split: str) -> list[str]:
        return [bioasq.question_id(question.id) for question in qa._splits[split].questions]

    few, more = many(30), many(40)
    assert 0 < len(set(ids(few, "dev"))) < 15
    assert not set(ids(few, "dev")) & set(ids(few, "train"))
    assert {ids(few, "dev").count(number) for number in ids(few, "dev")} == {3}
    assert set(ids(few, "dev")) <= set(ids(more, "dev"))
    assert few.score("dev", pointing(few, "dev"))["strict_accuracy"] == 100.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, folder: f.pop("dev"), "no dev file"),
        (
            lambda f, folder: f.update(train=f["test"][:1]),
            "batch1.json: question dd_000 has no answer .2 have none.; give a",
        ),
        (lambda f, folder: f.update(dev=f["test"][1:]), "batch2.json: question ee has no answer .1 have none"),
        (lambda f, folder: f.update(gold=[]), "question dd has no answer .2 have none.; .*--config.qa.gold"),
        (lambda f, folder: f.pop("test"), "gold answers but no test file"),
        (lambda f, folder: f.update(gold=[golden(folder, "8B", xx=["a"])]), "8B_golden.json: none of its 1 factoid"),
        (lambda f, folder: f.update(gold=[golden(folder, "7B", dd=[])]), "question dd has no exact_answer"),
        (lambda f, folder: f.update(test=f["test"] + f["test"][:1]), "question dd_000 is in another file"),
    ],
)
def test_inconsistent_files_are_errors(tmp_path, tokenizer, change, message):
    given = bioasq_files(tmp_path) | {"gold": [golden(tmp_path, "7B1", dd=["imatinib"], ee=["egfr"])]}
    change(given, tmp_path)
    gold = given.pop("gold")
    with pytest.raises(UserError, match=message):
        QaTask(given, tokenizer, windowing=SMALL, measures="bioasq", gold=gold)


def test_files_are_listed_with_commas_and_patterns(tmp_path):
    for name in ("a1", "a2", "b"):
        write(tmp_path, name, passage("x", "which ?", "kras"))
    listed = splits.expand_paths(f"{tmp_path}/b.json, {tmp_path}/a*.json")
    assert [re.sub(".*/", "", path) for path in listed] == ["a1.json", "a2.json", "b.json"]
    assert splits.expand_paths("") == []


@pytest.mark.slow
def test_the_five_batches_of_bioasq_7b_are_scored_as_by_an_independent_count(shared_data):
    folder = shared_data / "eval" / "qa" / "BioASQ-7b"
    tokenizer = Tokenizer(str(shared_data / "vocab" / "scivocab-uncased.txt"))
    gold_files = sorted(map(str, (folder / "electramed").glob("7B*_golden.json")))
    qa = QaTask(
        {
            "train": [str(folder / "rebuilt" / "training7b-reconstructed.json.gz")],
            "dev": [str(folder / "huggingBioASQ" / "val" / "BioASQ-val-factoid.json")],
            "test": sorted(map(str, (folder / "electramed").glob("BioASQ-test-factoid-7b-*.json"))),
        },
        tokenizer,
        measures="bioasq",
        gold=gold_files,
    )
    summary = qa.data_summary()
    sizes = summary["sizes"]["test"]
    assert [sizes[name] for name in ("questions", "passages", "gold", "attainable")] == [162, 407, 162, 129]
    assert summary["windows"]["train"]["lost"] == summary["windows"]["dev"]["lost"] == 0
    contexts: dict[str, list[str]] = {}
    for question in qa._splits["test"].questions:
        contexts.setdefault(bioasq.question_id(question.id), []).append(question.context.lower())
    found, texts = {}, {}
    for batch, path in enumerate(gold_files, 1):
        factoids = [q for q in json.loads(pathlib.Path(path).read_text("utf-8"))["questions"] if q["type"] == "factoid"]
        for q in factoids:
            there = [t for t in q["exact_answer"][0] if any(t.lower() in context for context in contexts[q["id"]])]
            texts[q["id"]] = min(there, key=len, default="")
        found[batch] = sum(bool(texts[q["id"]]) for q in factoids)
        assert len(factoids) == [39, 25, 29, 34, 35][batch - 1]
    scores = qa.score("test", pointing_at(qa, "test", tokenizer, texts))
    for batch, size in zip(found, [39, 25, 29, 34, 35], strict=True):
        # a few answers begin or end inside a word piece, or are longer than an answer may be
        assert found[batch] - 6 <= scores[f"lenient_accuracy_7B{batch}"] * size / 100 <= found[batch]
    right = sum(
        scores[f"strict_accuracy_7B{batch}"] * size for batch, size in zip(found, [39, 25, 29, 34, 35], strict=True)
    )
    assert scores["strict_accuracy"] == pytest.approx(right / 162)


def test_squad_at_128_word_pieces_says_how_far_its_windows_are_apart(tmp_path, tokenizer):
    paragraphs = [passage(f"{n}", f"which gene {n} ?", "abc", FILLER * 9) for n in range(2)]
    paths = {"train": write(tmp_path, "train", paragraphs[0]), "dev": write(tmp_path, "dev", paragraphs[1])}
    qa = QaTask(paths, tokenizer, windowing=WindowConfig(128))
    assert len(qa.examples("dev")) > 1
    assert qa.summary_lines()[-1].startswith("windows of 128 word pieces start 30 apart")
    assert qa.score("dev", pointing(qa, "dev"))["exact_match"] == 100
