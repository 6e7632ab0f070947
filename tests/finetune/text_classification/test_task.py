"""Labels of texts: their examples, their scores, and their placeholders."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from invented_corpus import TOKENS, tiny_init_encoder

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig, TaskConfig, TextConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import make_task
from electramed_jax.finetune.text_classification import inputs, placeholders

RELATIONS = {
    "train": [("the @DRUG$ with @GENE$", "CPR:3"), ("@DRUG$ of a @GENE$ dose", "CPR:4"), ("@DRUG$ by @GENE$", "false")],
    "dev": [("a @DRUG$ with @GENE$", "CPR:3"), ("@GENE$ @DRUG$", "false")],
    "test": [("@DRUG$ of @GENE$", "CPR:4")],
}


def write(folder, splits: dict[str, list[tuple]], header: str = "sentence\tlabel") -> None:
    for split, rows in splits.items():
        lines = [header, *("\t".join(map(str, row)) for row in rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")


def make(folder, kind: str, began=None, max_length: int = 32, primary="", strict_labels=False, **settings):
    config = FinetuneConfig(
        task=TaskConfig(
            kind=kind, data=str(folder), max_seq_length=max_length, primary=primary, strict_labels=strict_labels
        ),
        text=TextConfig(**settings),
    )
    return make_task.make_task(config, began or tiny_init_encoder())


def pieces(task, split: str, number: int, tokens) -> str:
    return " ".join(tokens[token] for token in task.examples(split).input_ids[number])


def perfect(task, split: str) -> list[np.ndarray]:
    labels = task.examples(split).labels
    if task.kind == "similarity":
        return [np.float32(label) for label in labels]
    if task.kind == "multilabel":
        return [np.where(label > 0, 9.0, -9.0) for label in labels]
    return [np.eye(task.head.size)[label] for label in labels]


def test_relations_are_scored_over_what_is_not_false(tmp_path):
    write(tmp_path, RELATIONS)
    task, _, _ = make(tmp_path, "relations")
    assert task.head.labels == ("CPR:3", "CPR:4", "false")
    assert task.score("dev", perfect(task, "dev"))["f1"] == 100
    nothing = [np.array([0, 0, 1])] * 2
    scores = task.score("dev", nothing)
    assert (scores["f1"], scores["accuracy"]) == (0, 50)
    assert task.data_summary()["counted"] == ["CPR:3", "CPR:4"]
    assert task.predictions("dev", nothing).split("\n")[1:3] == ["2\tCPR:3\tfalse", "3\tfalse\tfalse"]


def test_placeholders_are_entries_of_the_vocabulary_or_pieces_by_option(tmp_path):
    write(tmp_path, RELATIONS)
    task, began, described = make(tmp_path, "relations")
    assert described.whole_tokens == ("@DRUG$", "@GENE$")
    assert pieces(task, "train", 0, began.tokens) == "[CLS] the @DRUG$ with @GENE$ [SEP]"
    assert len(began.tokens) == len(TOKENS) and "[unused0]" not in began.tokens
    task, began, described = make(tmp_path, "relations", placeholders="pieces")
    assert described.whole_tokens == () and tuple(began.tokens) == TOKENS
    assert pieces(task, "train", 0, TOKENS) == "[CLS] the @ drug $ with @ gene $ [SEP]"


def test_a_placeholder_is_initialized_as_its_word():
    rows = np.random.default_rng(0).normal(size=(128, 8)).astype(np.float32)
    began = dataclasses.replace(tiny_init_encoder(), params={"embeddings": {"word": rows}, "encoder": {}})
    extended = placeholders.add_to_vocabulary(
        began, ["@DRUG$", "@DRUG-GENE$", "@TIMOLOL$"]
    )  # two free entries, then a new one
    table = extended.params["embeddings"]["word"]
    ids = {token: number for number, token in enumerate(extended.tokens)}
    assert (ids["@DRUG$"], ids["@DRUG-GENE$"], ids["@TIMOLOL$"]) == (5, 6, len(TOKENS))
    np.testing.assert_array_equal(table[5], rows[ids["drug"]])
    np.testing.assert_allclose(table[6], (rows[ids["drug"]] + rows[ids["gene"]]) / 2, rtol=1e-6)
    np.testing.assert_allclose(table[len(TOKENS)], rows[[ids["tim"], ids["##ol"], ids["##ol"]]].mean(axis=0), rtol=1e-6)
    others = [number for number in range(len(TOKENS)) if number not in (5, 6)]
    np.testing.assert_array_equal(table[others], rows[others])
    assert extended.model.vocab_size == len(TOKENS) + 1
    assert placeholders.add_to_vocabulary(extended, ["@DRUG$"]) == extended


def test_a_vocabulary_without_pieces_for_a_placeholder_is_an_error_with_file_and_line(tmp_path):
    write(tmp_path, RELATIONS)
    poor = tuple(token for token in TOKENS if token != "$")
    with pytest.raises(UserError, match="train.tsv, line 2: .*@DRUG.*placeholders=whole"):
        make(tmp_path, "relations", tiny_init_encoder(poor), placeholders="pieces")
    make(tmp_path, "relations", tiny_init_encoder(poor))


def test_a_long_text_is_cut_around_its_placeholders():
    ids = np.arange(100)
    for marked in ([0, 9], [90, 99], [45, 52], [3, 99], [0, 99], [40, 60], [40, 59], [8, 28]):
        kept, _ = inputs.truncate(ids, ids[:0], 20, marked)
        assert len(set(kept)) == 20 and set(marked) <= set(kept), marked
        assert kept.tolist() == sorted(kept)
        if marked == [40, 60]:  # too far apart: half of the room around each
            assert kept.tolist() == [*range(35, 45), *range(56, 66)]
    assert inputs.truncate(ids, ids[:0], 20, [])[0].tolist() == list(range(20))


def test_of_a_long_pair_the_longer_text_is_cut():
    a, b = np.arange(30), np.arange(8)
    assert [len(one) for one in inputs.truncate(a, b, 20, [])] == [12, 8]
    assert [len(one) for one in inputs.truncate(b, a, 20, [])] == [8, 12]
    assert [len(one) for one in inputs.truncate(a, a, 21, [])] == [11, 10]


def test_pairs_are_a_and_b(tmp_path):
    rows = [("treated by", "the dose", "yes"), ("a", "patients in", "no"), ("of", "a", "maybe")]
    write(tmp_path, {"train": rows, "dev": rows}, "question\tcontext\tlabel")
    task, began, _ = make(tmp_path, "classification")
    assert pieces(task, "train", 0, began.tokens) == "[CLS] treated by [SEP] the dose [SEP]"
    assert task.score("dev", perfect(task, "dev"))["accuracy"] == 100
    assert task.head.labels == ("maybe", "no", "yes")


def test_sets_of_labels(tmp_path):
    rows = [("the", "x, y"), ("a dose", "y"), ("patients", "")]
    write(tmp_path, {"train": rows, "dev": rows})
    (tmp_path / "test.jsonl").write_text(json.dumps({"text": "a", "label": ["y", "x"]}))
    task, _, _ = make(tmp_path, "multilabel")
    assert [label.tolist() for label in task.examples("train").labels] == [[1, 1], [0, 1], [0, 0]]
    assert task.examples("test").labels[0].tolist() == [1, 1]
    assert task.score("dev", perfect(task, "dev"))["f1"] == 100
    assert task.predictions("dev", perfect(task, "dev")).split("\n")[1] == "2\tx,y\tx,y"


def test_numbers(tmp_path):
    rows = [("the", "a dose", 0.5), ("a dose", "by", 4), ("patients", "in", "1.25")]
    write(tmp_path, {"train": rows, "dev": rows}, "sentence1\tsentence2\tscore")
    task, _, _ = make(tmp_path, "similarity")
    scores = task.score("dev", perfect(task, "dev"))
    assert (scores["pearson"], scores["spearman"], scores["mean_squared_error"]) == (
        pytest.approx(100),
        pytest.approx(100),
        0,
    )


@pytest.mark.parametrize(
    "kind, split, row, message",
    [
        ("classification", "dev", ("a", " "), "dev.tsv, line 2: the label is ' '"),
        ("similarity", "train", ("a", "high"), "train.tsv, line 2: the label 'high' is not a number"),
        ("similarity", "train", ("a", "nan"), "train.tsv, line 2: the label 'nan' is not a finite number"),
    ],
)
def test_labels_that_cannot_be_used_are_named_by_file_and_line(tmp_path, kind, split, row, message):
    write(tmp_path, RELATIONS | {split: [row]})
    with pytest.raises(UserError, match=message):
        make(tmp_path, kind)


def test_a_relation_needs_a_label_that_is_not_false(tmp_path):
    write(tmp_path, {"train": [("a", "false"), ("the", "false")], "dev": [("a", "false")]})
    with pytest.raises(UserError, match="its labels are false; wanted at least two"):
        make(tmp_path, "relations")


def test_a_negative_class_with_another_name_is_an_error_instead_of_a_high_score(tmp_path):
    """36 of 40 labels are "unrelated": counted as a positive class, the micro-F1 would be 90 with no relation found."""
    rows = [("a", "unrelated")] * 36 + [("the", "CPR:3")] * 4
    write(tmp_path, {"train": rows, "dev": rows})
    with pytest.raises(UserError, match="train.tsv: its labels are CPR:3, unrelated; none has a usual name"):
        make(tmp_path, "relations")
    task, _, _ = make(tmp_path, "relations", negative="unrelated")
    nothing = [np.array([0, 1])] * 40
    assert task.head.labels == ("CPR:3", "unrelated")
    assert task.score("dev", nothing)["f1"] == 0
    assert task.data_summary()["negative"] == "unrelated" and task.data_summary()["counted"] == ["CPR:3"]
    assert "no relation: unrelated; labels that are scored: CPR:3" in task.summary_lines()


def test_part_of_a_label_is_not_the_negative_class(tmp_path):
    rows = [("a", "0"), ("the", "CPR:10"), ("of", "CPR:3")]
    write(tmp_path, {"train": rows, "dev": rows})
    task, _, _ = make(tmp_path, "relations", negative="0")
    assert task.data_summary()["counted"] == ["CPR:10", "CPR:3"]


def test_a_label_unknown_in_train_counts_as_missed_with_a_warning(tmp_path):
    write(tmp_path, RELATIONS | {"test": [("a", "CPR:9"), ("the @DRUG$", "CPR:4"), ("of", "false")]})
    task, _, _ = make(tmp_path, "relations")
    found = [np.array([0, 9, 0]), np.array([0, 9, 0]), np.array([0, 0, 9])]
    scores = task.score("test", found)
    assert (scores["precision"], scores["recall"]) == (50, 50), "CPR:9 is one of two positives, and is missed"
    assert scores["recall/CPR:9"] == 0 and scores["accuracy"] == pytest.approx(200 / 3)
    assert any(
        "1 of 3 test examples have a label that no training example has (CPR:9 1)" in w for w in task.data_warnings()
    )
    with pytest.raises(UserError, match="test.tsv, line 2: unknown label 'CPR:9'.*have CPR:3, CPR:4, false"):
        make(tmp_path, "relations", strict_labels=True)


def test_unknown_labels_of_a_set_count_as_missed(tmp_path):
    write(tmp_path, {"train": [("the", "x,y"), ("a", "y")], "dev": [("of", "x,z")]})
    task, _, _ = make(tmp_path, "multilabel")
    scores = task.score("dev", [np.array([9.0, -9.0])])
    assert (scores["precision"], scores["recall"], scores["accuracy"]) == (100, 50, 0)


def test_hallmarks_as_binary_values_are_ten_labels(tmp_path):
    """BLURB writes HoC's labels as 0_0,1_1,...: as 20 classes, a model that finds no hallmark has a high F1."""

    def values(*positive: int) -> str:
        return ",".join(f"{n}_{int(n in positive)}" for n in range(10))

    rows = [("the", values()), ("a dose", values(3)), ("patients", values(0, 9))]
    write(tmp_path, {"train": rows, "dev": rows}, "sentence\tlabels")
    task, _, _ = make(tmp_path, "multilabel")
    assert task.head.labels == tuple(map(str, range(10)))
    assert [label.nonzero()[0].tolist() for label in task.examples("dev").labels] == [[], [3], [0, 9]]
    assert task.score("dev", [np.full(10, -9.0)] * 3)["f1"] == 0
    assert task.score("dev", perfect(task, "dev"))["f1"] == 100
    assert task.predictions("dev", perfect(task, "dev")).split("\n")[3] == "4\t0,9\t0,9"
    assert any(
        "train has no examples of 1, 2, 4, 5, 6, 7, 8: a model cannot learn them" in w for w in task.data_warnings()
    )
    write(tmp_path, {"dev": [("the", "0_0,1_1")]}, "sentence\tlabels")
    with pytest.raises(UserError, match="dev.tsv, line 2: the label 0_0, 1_1 is not one value of each of 0, 1, 2"):
        make(tmp_path, "multilabel")
    with pytest.raises(UserError, match="use --config.task.kind=multilabel"):
        make(tmp_path, "classification")


def test_hallmarks_of_sentences_are_scored_by_document(tmp_path):
    """BLUE and BLURB unite the labels of the sentences of an abstract; the id of a sentence is PMID_s0."""
    rows = [
        ("100_s0", "the", "x"),
        ("100_s1", "a dose", "y"),
        ("7_s0", "of", ""),
        ("7_s1", "in", "x"),
        ("9_s0", "by", ""),
    ]
    write(tmp_path, {"train": rows, "dev": rows}, "index\tsentence\tlabels")
    sentences, _, _ = make(tmp_path, "multilabel")
    task, _, _ = make(tmp_path, "multilabel", document_column="index")
    found = [np.array(logits) for logits in ([-9.0, 9], [9, -9], [9, -9], [-9, -9], [-9, -9])]
    assert sentences.score("dev", found)["recall"] == 0, "every label is in another sentence"
    scores = task.score("dev", found)
    assert (scores["f1"], scores["accuracy"], scores["example_f1"]) == (100, 100, 100)
    assert {record["document"] for record in task.records("dev", found)} == {"100", "7", "9"}
    with pytest.raises(UserError, match="no column abstract; got index, sentence, labels"):
        make(tmp_path, "multilabel", document_column="abstract")


def test_predictions_of_a_single_label_are_warned_about(tmp_path):
    write(tmp_path, RELATIONS)
    task, _, _ = make(tmp_path, "relations")
    negative, mixed = [np.array([0, 0, 1])] * 2, [np.array([0, 0, 1]), np.array([1, 0, 0])]
    (warning,) = task.prediction_warnings("dev", negative)
    assert warning == "all 2 predictions of dev are false, which means no relation"
    assert task.prediction_warnings("dev", mixed) == []
    assert task.prediction_warnings("test", negative[:1]) == [], "all gold labels are the same there, too"


def test_shared_texts_files_and_absent_labels_are_warned_about(tmp_path):
    train = [("the dose", "x"), ("patients", "y"), ("a", "z")]
    write(tmp_path, {"train": train, "dev": [("of", "x"), ("in", "y")], "test": [("the dose", "y"), ("by", "y")]})
    task, _, _ = make(tmp_path, "classification")
    assert task.data_warnings() == [
        "1 of 2 test examples (50.00%) are in train too, 1 of them with another label: scores of test may be too high",
        "dev has no examples of z: its scores mean nothing for it",
        "all 2 examples of test have the label y: a model that always predicts it cannot be distinguished from a good one",
    ]
    write(tmp_path, {"train": train, "dev": [("of", "x"), ("in", "y"), ("by", "z")], "test": train})
    task, _, _ = make(tmp_path, "classification")
    same, shared = task.data_warnings()
    assert same.startswith("train and test are the same file (") and "were trained on" in same
    assert shared.startswith("3 of 3 test examples (100.00%) are in train too: ")


def test_a_split_without_a_positive_relation_is_warned_about(tmp_path):
    write(tmp_path, RELATIONS | {"test": [("a dose", "false")]})
    task, _, _ = make(tmp_path, "relations")
    assert task.data_warnings()[-1] == (
        "test has no examples of any label that is scored: its F1 is 0 whatever a model predicts"
    )


def test_another_score_can_choose_the_checkpoint(tmp_path):
    write(tmp_path, RELATIONS)
    for primary in ("macro_f1", "f1/CPR:3"):
        task, _, _ = make(tmp_path, "relations", primary=primary)
        assert task.primary == primary and primary in task.score("dev", perfect(task, "dev"))
    with pytest.raises(UserError, match="config.task.primary='f1/false': not a score of this task; wanted one of f1, "):
        make(tmp_path, "relations", primary="f1/false")


def test_a_placeholder_is_one_token_to_the_exported_tokenizer_too():
    tokens = [*TOKENS, "@GENE$"]
    tokenizer = Tokenizer.from_tokens(tokens, True, ("@GENE$",))
    wanted = ["the", "@GENE$", "[UNK]", "@", "gene"]
    assert [tokens[number] for number in tokenizer.encode_batch(["The @GENE$-@gene"])[0]] == wanted
    assert tokenizer.backend.encode("The @GENE$-@gene", add_special_tokens=False).tokens == wanted


@pytest.mark.slow
@pytest.mark.parametrize("placeholder_mode", ["whole", "pieces"])
def test_chemprots_own_rows_are_read(shared_data, placeholder_mode):
    folder = shared_data / "eval" / "re" / "ChemProt"
    task_config = TaskConfig(kind="relations", train=str(folder / "electramed" / "dev.csv"), dev_fraction=0.1)
    config = FinetuneConfig(task=task_config, text=TextConfig(placeholders=placeholder_mode))
    letters = tuple(letter for letter in "abcdefghijklmnopqrstuvwxyz-" if letter not in TOKENS)
    task, _, described = make_task.make_task(
        config, tiny_init_encoder((*TOKENS, *letters, "chem", "chemical"), max_positions=128)
    )
    assert described.whole_tokens == (("@CHEM-GENE$", "@CHEMICAL$", "@GENE$") if placeholder_mode == "whole" else ())
    labels = task.data_summary()["labels"]
    counted = {label: labels["train"][label] + labels["dev"][label] for label in labels["train"]}
    assert counted == {"CPR:3": 550, "CPR:4": 1094, "CPR:5": 116, "CPR:6": 199, "CPR:9": 457, "false": 9404}
