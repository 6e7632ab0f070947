"""Each corpus is read from files in its authors' form, and trained on with the settings of its recipe."""

from __future__ import annotations

import json
import pathlib

import pytest
from invented_corpora import SOURCES
from invented_corpus import tiny_init_encoder

from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune as config_lib
from electramed_jax.finetune.corpora import prepare, registry
from electramed_jax.finetune.make_task import make_task

CONFIGS = pathlib.Path(__file__).resolve().parents[3] / "configs"
# What the invented files hold, by split: entities of some corpora, rows of the others.
ENTITIES = {
    "bc5-chemical": (2, 2, 2),
    "bc5-disease": (1, 1, 1),
    "ncbi-disease": (1, 1, 1),
    "bc2gm": (10, 4, 4),
    "jnlpba": (6, 400, 2),
    "jnlpba-merged": (6, 400, 2),
    "linnaeus": (1, 1, 1),
    "species-800": (1, 1, 1),
    "bc4chemd": (2, 2, 2),
}


def prepared(name: str, tmp_path: pathlib.Path) -> tuple[dict, pathlib.Path]:
    output = tmp_path / "prepared"
    source = tmp_path / "source"
    source.mkdir()
    return prepare.prepare(name, str(SOURCES[name](source)), str(output), any_counts=True), output


def rows_of(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_corpus_has_invented_files():
    assert SOURCES.keys() == registry.CORPORA.keys()


@pytest.mark.parametrize("name", registry.CORPORA)
def test_the_prepared_files_are_read_with_the_settings_of_the_recipe(tmp_path, name):
    record, output = prepared(name, tmp_path)
    arguments = [
        f"--config={CONFIGS}/finetune_ner.py",
        f"--config.task.corpus={name}",
        f"--config.task.data={output}",
        "--config.init=x",
        "--config.task.max_seq_length=32",
        "--config.qa.max_query_length=8",
        "--config.task.dev_fraction=0.5" if name == "bioasq-factoid" else "--config.epochs=1",
    ]
    config = config_lib.from_flags(prepare.add_settings(arguments))
    corpus = registry.find_corpus(name)
    assert (config.task.kind, config.task.max_seq_length) == (corpus.kind, 32), "the command line comes last"
    assert config.batch_size == corpus.settings["batch_size"]
    if name == "bioasq-factoid":
        return  # one question cannot be both train and dev
    task, _, _ = make_task(config, tiny_init_encoder(max_positions=32))
    assert set(task.splits) >= {"train", "dev"} and len(task.examples("train"))
    assert set(record["counts"]) == set(task.splits)


@pytest.mark.parametrize(("name", "entities"), ENTITIES.items())
def test_every_entity_is_found(tmp_path, name, entities):
    record, output = prepared(name, tmp_path)
    assert tuple(record["counts"][split]["entities"] for split in ("train", "dev", "test")) == entities
    for row in rows_of(output / "train.jsonl"):
        for entity in row.get("entities", ()):
            mention = row["text"][entity["start"] : entity["end"]]
            assert mention in ("Atenolol", "atenolol", "nephritis", "IL 2", "p53", "human")


def test_a_word_of_two_elements_of_pico_belongs_to_the_first(tmp_path):
    _, output = prepared("ebm-pico", tmp_path)
    for split in ("train", "dev", "test"):
        for row in rows_of(output / f"{split}.jsonl"):
            assert row["ner_tags"] == ["I-PAR", "I-PAR", "O", "I-INT", "O", "O"]


def test_hoc_is_split_by_lists_if_there_are_some(tmp_path):
    source = SOURCES["hoc"](tmp_path / "source")
    for split, numbers in {"train": range(20), "dev": range(20, 24), "test": range(24, 30)}.items():
        path = source / "split" / f"{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{number}\n" for number in numbers))
    record = prepare.prepare("hoc", str(source), str(tmp_path / "out"))
    assert [record["counts"][split]["rows"] for split in ("train", "dev", "test")] == [20, 4, 6]
    (source / "split" / "test.txt").write_text("24\n")
    with pytest.raises(UserError, match=r"abstract 25 is in none of split/train.txt"):
        prepare.prepare("hoc", str(source), str(tmp_path / "out"))


def test_the_questions_of_bioasqs_test_leave_the_training_set(tmp_path):
    _, output = prepared("bioasq-yesno", tmp_path)
    asked = {row["sentence1"] for row in rows_of(output / "test.jsonl")}
    trained = {row["sentence1"] for split in ("train", "dev") for row in rows_of(output / f"{split}.jsonl")}
    assert len(asked) == 4 and len(trained) == 38 and not asked & trained


def test_other_numbers_than_the_expected_ones_are_an_error(tmp_path):
    source = SOURCES["bc2gm"](tmp_path / "source")
    with pytest.raises(UserError, match=r"bc2gm: train has 5 rows, not 12,500; dev has 2 rows, .*--any_counts"):
        prepare.prepare("bc2gm", str(source), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(UserError, match=r"no CDR_TrainingSet.PubTator.txt in it; it has readme.txt"):
        prepare.prepare("bc5-disease", str(tmp_path), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        prepare.prepare("bc5-disease", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="bc5-diseases: no such corpus; did you mean bc5-disease"):
        prepare.prepare("bc5-diseases", str(tmp_path))


def test_a_corpus_has_to_be_prepared_before_it_is_trained_on(tmp_path):
    arguments = ["--config=x.py", "--config.task.corpus=bc2gm", f"--config.task.data={tmp_path}"]
    with pytest.raises(UserError, match=r"no corpus.json; run electramed corpora prepare bc2gm --source"):
        prepare.add_settings(arguments)
    (tmp_path / "corpus.json").write_text('{"corpus": "hoc"}')
    with pytest.raises(UserError, match="holds the corpus hoc, not bc2gm"):
        prepare.add_settings(arguments)
    assert prepare.add_settings(["--config=x.py"]) == ["--config=x.py"]


def test_a_label_that_the_corpus_does_not_have_is_an_error(tmp_path):
    source = SOURCES["ddi"](tmp_path / "source")
    path = source / "data" / "dev.tsv"
    path.write_text(path.read_text().replace("DDI-effect", "effect"))
    with pytest.raises(UserError, match=r"ddi: dev has the label 'effect'; wanted DDI-advise, DDI-effect"):
        prepare.prepare("ddi", str(source), str(tmp_path / "out"))
