"""`electramed inspect`: packed folders, shards, documents folders and workdirs."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from invented_corpus import write_conll
from run_command import run_command, run_pipeline

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, to_dict
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Head
from electramed_jax.training.starts import RunRecord

FIRST_TOKENS = "[CLS] kinase"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[pathlib.Path, dict[str, dict]]:
    """A folder in which prepare, vocab and pack have run, and their results."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "empty.txt").write_text("")
    return folder, run_pipeline(folder)


@pytest.mark.parametrize("name", ["rows", "rows/manifest.json"])
def test_inspect_shows_rows_as_text(prepared, name, capsys):
    folder, results = prepared
    result = run_command("inspect", folder / name, "--rows", 2, "--verify")
    assert result["kind"] == "packed"
    assert len(result["rows"]) == 2 and result["rows"][0].startswith(FIRST_TOKENS)
    assert result["splits"]["train"] == results["pack"]["splits"]["train"]["rows"]
    shown = capsys.readouterr().err
    assert result["rows"][0] in shown and "SHA-256" in shown


def test_inspect_shows_one_shard(prepared):
    folder, _ = prepared
    (shard,) = (folder / "rows").glob("pubmed-validation.tfrecord-*")
    result = run_command("inspect", shard, "--rows", 1)
    assert len(result["rows"]) == 1 and result["rows"][0].startswith(FIRST_TOKENS)
    assert result["rows"] != run_command("inspect", folder / "rows", "--rows", 1)["rows"]


def test_inspect_shows_documents(prepared):
    folder, _ = prepared
    result = run_command("inspect", folder / "documents", "--rows", 3, "--split", "train")
    assert result["kind"] == "documents"
    assert len(result["rows"]) == 3 and result["rows"][0]["text"].startswith("Kinase ")


def test_inspect_shows_a_vocabulary_with_the_ids_of_its_special_tokens(prepared, capsys):
    folder, results = prepared
    result = run_command("inspect", folder / "vocab.txt")
    assert result["tokens"] == results["vocab"]["size"] == result["words"] + result["pieces of words (##)"] + 5
    assert result["special"] == {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    assert "lower-cased" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["in.jsonl.gz", "documents/train/part-00000.jsonl.gz"])
def test_inspect_shows_the_format_and_documents_of_an_input(prepared, name):
    result = run_command("inspect", prepared[0] / name, "--rows", 2)
    assert result["format"] == "jsonl" and len(result["rows"]) == 2
    assert result["rows"][0]["text"].startswith("Kinase ")


def test_inspect_shows_the_files_of_a_corpus(tmp_path):
    write_conll(tmp_path)
    result = run_command("inspect", tmp_path)
    assert result["splits"] == {"train": ["train.txt"], "dev": ["dev.txt"], "test": ["test.txt"]}


def test_inspect_shows_the_records_of_a_tfrecord_file_without_a_manifest(prepared, tmp_path):
    (shard,) = (prepared[0] / "rows").glob("pubmed-train.tfrecord-*")
    (tmp_path / "alone.tfrecord").write_bytes(shard.read_bytes())
    result = run_command("inspect", tmp_path / "alone.tfrecord")
    assert result["records"] == prepared[1]["pack"]["splits"]["train"]["rows"] > 0


def test_inspect_shows_the_scores_of_a_fine_tuning_run(tmp_path, capsys):
    head = Head("token", ("O", "B-Gene"), "softmax")
    spec = ModelSpec("ner", head, 32, ModelConfig(vocab_size=100), SpecialIds(), True, (), "runs/small", "punctuation")
    (tmp_path / "task.json").write_text(json.dumps(spec.to_json()))
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(FinetuneConfig(seeds=3))))
    run_command("inspect", tmp_path)
    assert "0 of 3 finished" in capsys.readouterr().err
    scores = {"dev": {"f1": {"mean": 71.5, "standard_deviation": 1.0}}}
    runs = [
        {
            "seed": 4,
            "best_step": 9,
            "best_epoch": 1.0,
            "dev": {"f1": 71.25},
            "history": [{"step": 9, "epoch": 1, "f1": 7}],
        }
    ]
    results = {"task": "ner", "variant": "", "published": [], "data": {"files": {}, "sizes": {"dev": {}}}, "encoder": "e",
               "primary": "f1", "seeds": [4], "seeds_wanted": 3, "scores": scores, "runs": runs, "config": {}, "code": ""}  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert run_command("inspect", tmp_path)["scores"] == scores
    shown = capsys.readouterr().err
    assert "1 of 3 finished" in shown and "seed 4  71.25" in shown and "O, B-Gene" in shown


def test_inspect_shows_the_recipe_of_a_workdir_with_the_steps_of_each_value_that_changed(tmp_path, capsys):
    config = Config(model=ModelConfig(vocab_size=100), data=DataConfig(max_seq_length=32), seed=7)
    faster = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-3))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(faster)))
    for step, settings in ((0, config), (20, faster)):
        with RunRecord(str(tmp_path), step, to_dict(settings)) as record:
            record.record_step(step + 20)
    (tmp_path / "metrics.jsonl").write_text('{"step": 40, "split": "train", "fill_fraction": 1.0}\n')
    result = run_command("inspect", tmp_path)
    assert result["config"]["seed"] == 7 and result["step"] == 40
    assert result["recipe"]["learning rate"] == "0.0005 (steps 1 to 20); 0.001 (steps 21 to 40)"
    assert "optimizer.learning_rate: steps 1 to 20: 0.0005; steps 21 to 40: 0.001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("absent", (), "no such file or folder"),
        (".", (), "contains no manifest.json, documents.json, .*; wanted a folder that a command"),
        ("empty.txt", (), "empty.txt: .*; electramed prepare --list_formats lists what is read"),
        ("rows", ("--split", "dev"), "split 'dev': not in .*; it has train, validation, test"),
        ("documents", ("--split", "dev"), "split 'dev': wanted one of train, validation, test"),
    ],
)
def test_inspect_refuses_other_paths_and_unknown_splits(prepared, path, arguments, message):
    with pytest.raises(UserError, match=message):
        run_command("inspect", prepared[0] / path, *arguments)
