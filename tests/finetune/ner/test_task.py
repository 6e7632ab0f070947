"""The entity task: every word of a file is scored, and errors name file and line."""

from __future__ import annotations

import numpy as np
import pytest
from invented_corpus import TOKENS, conll, write_conll
from seqeval.metrics import f1_score
from sklearn import metrics

from electramed_jax.common.errors import UserError
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import corpus_files
from electramed_jax.finetune.ner import task as ner
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.task.task import IGNORE


def make(folder, **settings) -> ner.NerTask:
    paths = split_files.find_split_files(str(folder), {}, corpus_files.ENDINGS)
    return ner.NerTask(paths, Tokenizer.from_tokens(TOKENS, True), **{"max_length": 32} | settings)


def perfect(task: ner.NerTask, split: str) -> list[np.ndarray]:
    """Logits of a model that predicts the labels of the file."""
    sizes = task.head.size
    return [np.eye(sizes, dtype=np.float32)[np.maximum(labels, 0)] for labels in task.examples(split).labels]


def test_the_gold_labels_of_the_examples_score_a_hundred(tmp_path):
    task = make(write_conll(tmp_path))
    for split in task.splits:
        scores = task.score(split, perfect(task, split))
        assert {scores[name] for name in ("f1", "precision", "recall", "merged_f1")} == {100.0}


@pytest.mark.parametrize("max_length", [8, 13, 24])
def test_long_sentences_in_windows_lose_no_word(tmp_path, max_length):
    long = " O\n".join(["the", *["patients"] * 60]) + " O\n" + "atenolol B-Drug\nnephritis B-Disease\n" * 20
    write_conll(tmp_path)
    (tmp_path / "test.txt").write_text(long)
    task = make(tmp_path, max_length=max_length)
    examples = task.examples("test")
    assert all(len(ids) <= max_length for ids in examples.input_ids)
    assert sum(int(np.sum(labels != IGNORE)) for labels in examples.labels) == 101
    assert task.score("test", perfect(task, "test"))["f1"] == 100
    assert "1 long sentences in windows" in task.summary_lines()[2]


def test_odd_words_of_a_file_are_words_like_others(tmp_path):
    write_conll(tmp_path)
    odd = ["\u202eabc", "\U0001f469\u200d\U0001f467", "acgt" * 50_000, "d\u0308o\u0301", "\u05d0\u200f"]
    dropped = ["\0", "\u200d", "\ufffd"]  # the tokenizer drops all their characters: they have no entity
    lines = [f"{word}\tB-Drug" for word in odd] + [f"{word}\tO" for word in dropped]
    (tmp_path / "test.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = make(tmp_path)
    assert task.score("test", perfect(task, "test"))["f1"] == 100
    predicted = task.predictions("test", perfect(task, "test")).split("\n")
    assert [line for line in predicted if line] == [f"{line}\t{line.split()[-1]}" for line in lines]


def test_the_score_equals_seqevals_for_random_logits(tmp_path):
    task = make(write_conll(tmp_path), max_length=10)
    draw = np.random.default_rng(0)
    outputs = [draw.normal(size=(len(ids), task.head.size)) for ids in task.examples("dev").input_ids]
    gold = [text.split("\n") for text in conll(12, 1).strip().split("\n\n")]
    gold = [[line.split("\t")[1] for line in sentence] for sentence in gold]
    assert task.score("dev", outputs)["f1"] == pytest.approx(100 * f1_score(gold, task.tags("dev", outputs)))
    lines = task.predictions("dev", outputs).split("\n")
    assert [line.split("\t")[1] for line in lines if line] == [tag for sentence in gold for tag in sentence]


def test_a_word_of_the_file_is_predicted_at_its_first_piece_even_if_it_has_none(tmp_path):
    write_conll(tmp_path)
    (tmp_path / "test.txt").write_text("atenolol B-Drug\n\u200b O\nstrange O\n", encoding="utf-8")
    task = make(tmp_path, words="file")
    of_file, of_text = task.examples("test").input_ids
    assert len(of_text) == len(of_file) - 1, "the text has no word for a character that the tokenizer drops"
    ids, labels = of_file, task.examples("test").labels[0]
    assert [TOKENS[number] for number in ids] == ["[CLS]", "at", "##en", "##ol", "##ol", "[UNK]", "[UNK]", "[SEP]"]
    assert np.flatnonzero(labels != IGNORE).tolist() == [1, 5, 6]


# Words with punctuation inside, a word without a word piece, and entities next to each other.
HYPHENS = "the O\nat-tim B-Drug\ndose I-Drug\n( O\nmet/tim B-Drug\n) O\nat- B-Drug\nby O\n\nacute B-Disease\n\u200b I-Disease\n"
HYPHENS += "gast-itis I-Disease\n\u200b O\n"


def write_hyphens(folder):
    for split in ("train", "dev", "test"):
        (folder / f"{split}.txt").write_text(HYPHENS, encoding="utf-8")
    return folder


def test_every_word_after_the_split_at_punctuation_has_a_label_by_default(tmp_path):
    task = make(write_hyphens(tmp_path))
    ids, labels = task.examples("train").input_ids[0], task.examples("train").labels[0]
    tagged = [
        (TOKENS[number] if number != 1 else "?", task.head.labels[label])
        for number, label in zip(ids.tolist(), labels.tolist(), strict=True)
        if label != IGNORE
    ]
    assert tagged[1:5] == [("at", "B-Drug"), ("?", "I-Drug"), ("tim", "I-Drug"), ("dose", "I-Drug")]
    assert tagged[6:9] == [("met", "B-Drug"), ("?", "I-Drug"), ("tim", "I-Drug")]
    assert [task.data_summary()["sizes"][split]["split_entity_words"] for split in task.splits] == [4, 4, 4]
    assert "4 words of entities have punctuation inside" in task.summary_lines()[0]


@pytest.mark.parametrize("words", ["punctuation", "file"])
def test_perfect_predictions_score_a_hundred_by_words_and_by_characters(tmp_path, words):
    task = make(write_hyphens(tmp_path), words=words)
    scores = task.score("test", perfect(task, "test"))
    assert (scores["f1"], scores["text_f1"], scores["text_recall"]) == (100, 100, 100)


def test_an_entity_that_is_cut_at_a_hyphen_is_correct_by_words_and_wrong_by_characters(tmp_path):
    task = make(write_hyphens(tmp_path))
    outputs = perfect(task, "test")
    (hyphen,) = [p for p, number in enumerate(task.examples("test").input_ids[0]) if p == 3]
    outputs[0][hyphen] = np.eye(task.head.size)[0]  # O at the "-" of at-tim
    scores = task.score("test", outputs)
    assert scores["f1"] == 100
    assert scores["text_recall"] == pytest.approx(100 * 3 / 4) and scores["text_precision"] == pytest.approx(
        100 * 3 / 5
    )


def test_with_the_words_of_the_file_the_score_by_characters_is_of_the_text_as_predict_reads_it(tmp_path):
    """At the "-" and the second word of at-tim, which have no label in training, this model predicts O."""
    task = make(write_hyphens(tmp_path), words="file")
    outputs = perfect(task, "test")
    in_file = sum(int(np.sum(labels != IGNORE)) for labels in task.examples("train").labels)
    in_both = sum(int(np.sum(labels != IGNORE)) for labels in task.examples("test").labels)
    assert in_both > 2 * in_file, "test has the windows of the text, too"
    for logits, ids in zip(outputs[2:], task.examples("test").input_ids[2:], strict=True):
        logits[[p for p, number in enumerate(ids) if TOKENS[number] in ("[UNK]", "tim")]] = np.eye(task.head.size)[0]
    scores = task.score("test", outputs)
    assert scores["f1"] == 100 and scores["text_f1"] < 50


def test_every_scheme_teaches_the_same(tmp_path):
    schemes = {
        "IOB2": "acute B-D\ngastritis I-D\nthe O\natenolol B-C\n",
        "BIOES": "acute B-D\ngastritis E-D\nthe O\natenolol S-C\n",
        "scibert": "acute B-D\ngastritis I-D\nthe O\natenolol I-C\n",
        "IOB1": "acute I-D\ngastritis I-D\nthe O\natenolol I-C\n",
    }
    taught = {}
    for scheme, text in schemes.items():
        folder = tmp_path / scheme
        folder.mkdir()
        for split in ("train", "dev"):
            (folder / f"{split}.tsv").write_text(text)
        task = make(folder)
        assert task.data_summary()["tag_schemes"]["train"]["scheme"] == scheme
        taught[scheme] = (task.head.labels, task.examples("train").labels[0].tolist())
    assert len(set(map(str, taught.values()))) == 1


def test_without_a_dev_file_training_sentences_can_be_held_out(tmp_path):
    write_conll(tmp_path)
    (tmp_path / "dev.txt").unlink()
    with pytest.raises(UserError, match="no dev file.*dev_fraction"):
        make(tmp_path)
    task = make(tmp_path, dev_fraction=0.25)
    sizes = task.data_summary()["sizes"]
    assert (sizes["train"]["sentences"], sizes["dev"]["sentences"]) == (30, 10)
    assert (
        task.examples("dev").input_ids[3].tolist()
        == make(tmp_path, dev_fraction=0.25).examples("dev").input_ids[3].tolist()
    )


@pytest.mark.parametrize(
    "split, text, message",
    [
        ("train", "a O\nb O\n", "train.txt: no entity"),
        ("test", "a O\n\nb E-Drug\nc L-Drug\nd B-Drug\n", "test.txt, line 3: E-Drug is not"),
    ],
)
def test_tags_that_cannot_be_used_are_named_by_file_and_line(tmp_path, split, text, message):
    write_conll(tmp_path)
    (tmp_path / f"{split}.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        make(tmp_path)


def test_a_type_unknown_in_train_counts_as_missed_with_a_warning(tmp_path):
    write_conll(tmp_path)
    (tmp_path / "test.txt").write_text("a O\n\nin B-Gene\natenolol B-Drug\n")
    task = make(tmp_path)
    scores = task.score("test", [np.eye(task.head.size)[np.maximum(one, 0)] for one in task.examples("test").labels])
    assert (scores["precision"], scores["recall"]) == (100, 50) and scores["f1/Gene"] == 0
    warnings = [line for line in task.data_warnings() if "test entities" in line or "test has" in line]
    assert warnings == [
        "1 of 2 test entities have a label that no training example has (Gene 1): they count as missed",
        "test has no entities of Disease: its scores mean nothing for it",
    ]
    with pytest.raises(UserError, match="test.txt, line 3: unknown tag 'B-Gene'.*Disease, Drug"):
        make(tmp_path, strict_labels=True)


def test_shared_sentences_and_a_split_without_entities_are_warned_about(tmp_path):
    for split, text in {
        "train": "atenolol B-Drug\ndose O\n\nthe O\ndose O\n",
        "dev": "by O\ntimolol B-Drug\n\natenolol O\ndose O\n",
        "test": "the O\ndose O\n",
    }.items():
        (tmp_path / f"{split}.txt").write_text(text)
    assert make(tmp_path).data_warnings() == [
        "1 of 2 dev sentences (50.00%) are in train too, 1 of them with another label: scores of dev may be too high",
        "1 of 1 test sentences (100.00%) are in train too: scores of test may be too high",
        "test has no entities of any label that is scored: its F1 is 0 whatever a model predicts",
    ]


def test_the_score_of_a_type_can_choose_the_checkpoint(tmp_path):
    task = make(write_conll(tmp_path), primary="f1/Drug")
    assert task.primary == "f1/Drug" and task.score("dev", perfect(task, "dev"))["f1/Drug"] == 100
    with pytest.raises(UserError, match="config.task.primary='accuracy': not a score of this task"):
        make(tmp_path, primary="accuracy")


def test_a_chosen_scheme_has_to_be_the_files(tmp_path):
    write_conll(tmp_path)
    make(tmp_path, scheme="IOB2")
    with pytest.raises(UserError, match=r"train.txt, line \d+: .* is not BIOES.*looks like IOB2"):
        make(tmp_path, scheme="BIOES")


def test_two_files_that_could_be_meant_are_a_question(tmp_path):
    write_conll(tmp_path)
    (tmp_path / "valid.tsv").write_text("a O\n")
    with pytest.raises(UserError, match="dev.txt and valid.tsv.*--config.task.dev=FILE"):
        make(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        make(tmp_path / "nowhere")


def test_the_score_by_word_equals_scikit_learns(tmp_path):
    task = make(write_conll(tmp_path), max_length=10)
    draw = np.random.default_rng(1)
    outputs = [draw.normal(size=(len(ids), task.head.size)) for ids in task.examples("dev").input_ids]
    lines = task.predictions("dev", outputs).split("\n")
    gold, predicted = zip(*((kind[2:] for kind in line.split("\t")[1:]) for line in lines if line), strict=True)
    wanted = metrics.f1_score(gold, predicted, labels=["Disease", "Drug"], average="macro")
    assert task.score("dev", outputs)["word_macro_f1"] == pytest.approx(100 * wanted)


def test_nested_and_overlapping_annotation_is_counted_and_reported(tmp_path):
    """Compares one nested entity, one that overlaps, and one that ends inside a word."""
    text = "renal cell carcinoma of atenolol dose in patients"
    spans = [(0, 20), (6, 20), (24, 37), (33, 48)]
    lines = [f"1|t|{text}", "1|a|", *(f"1\t{a}\t{b}\t{text[a:b]}\tDisease\tD1" for a, b in spans)]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    task = ner.NerTask(
        {split: str(tmp_path / f"{split}.txt") for split in ("train", "dev")},
        Tokenizer.from_tokens(TOKENS, True),
        max_length=128,
    )
    sizes = task.data_summary()["sizes"]["train"]
    assert (sizes["entities"], sizes["overlapping_entities"]) == (4, 2)
    assert (
        "3 entities that tags cannot give count as missed: 2 nested in a longer one or overlapping it, 1 with an end "
        "inside a word" in task.summary_lines()[0]
    )
