"""`electramed inspect`: packed folders, shards, documents folders and workdirs."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest
from run_command import run_command, run_pipeline

from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, to_dict
from electramed_jax.training.starts import RunRecord

FIRST_TOKENS = "[CLS] kinase"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> tuple[pathlib.Path, dict[str, dict]]:
    """A folder in which prepare, vocab and pack have run, and their results."""
    folder = tmp_path_factory.mktemp("prepared")
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
        ("in.jsonl.gz", (), "unknown kind of file; wanted a packed folder"),
        (".", (), "contains no manifest.json, documents.json or config.json"),
        ("rows", ("--split", "dev"), "split 'dev': not in .*; it has train, validation, test"),
        ("documents", ("--split", "dev"), "split 'dev': wanted one of train, validation, test"),
    ],
)
def test_inspect_refuses_other_paths_and_unknown_splits(prepared, path, arguments, message):
    with pytest.raises(UserError, match=message):
        run_command("inspect", prepared[0] / path, *arguments)
