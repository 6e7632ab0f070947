"""The record of a run is true: one owner, settings that count from their first step, inputs that are what they claim."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
import quick_run

from electramed_jax import cli
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.pretrain import inputs, loop
from electramed_jax.pretrain.workdir import read_config
from electramed_jax.training.starts import read_starts

HOLD = """
import sys
from electramed_jax.common.storage.folder_lock import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def pretrain(packed, quick_compilation):
    """Runs `electramed pretrain` in this process; returns its exit code."""

    def run(workdir: pathlib.Path, *options: str, **settings: object) -> int:
        settings = {"total_steps": 8, "save_every": 2, "log_every": 2, "eval_every": 8} | settings
        return cli.main(["pretrain", *quick_run.settings(packed, **settings), f"--workdir={workdir}", *options])

    return run


@pytest.fixture(scope="module")
def half_trained(pretrain, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("half") / "run"
    assert pretrain(workdir, "--stop_after=4") == 0
    return workdir


@pytest.fixture
def workdir(half_trained, tmp_path) -> pathlib.Path:
    return shutil.copytree(half_trained, tmp_path / "run")


@pytest.mark.parametrize("command", ["pretrain", "finetune", "prepare", "pack", "download", "export"])
def test_a_second_process_is_refused_by_every_command_that_writes_a_folder(command, packed, tmp_path, capsys):
    folder = tmp_path / "out"
    arguments = {
        "pretrain": [*quick_run.settings(packed), f"--workdir={folder}"],
        "finetune": [
            f"--config={quick_run.REPOSITORY}/configs/finetune_ner.py", "--config.task.data=corpus", f"--workdir={folder}",
            "--config.init=encoder",
        ],
        "prepare": ["--input", "no.jsonl", "--output", folder],
        "pack": ["--documents", "none", "--vocab", "none", "--output", folder],
        "download": ["--output", folder, "--mirror", "http://127.0.0.1:9"],
        "export": ["--workdir", "none", "--output", folder],
    }[command]  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        assert cli.main([command, *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{folder}: in use by process {holder.pid} of " in line and "stop it first" in line
        holder.stdin.close()


@pytest.mark.slow
def test_settings_count_from_the_first_step_that_trained_with_them(pretrain, workdir, tmp_path, capsys):
    before = (workdir / "config.json").read_bytes()
    assert pretrain(workdir, "--stop_after=4", optimizer__learning_rate=0.005) == 0
    assert (workdir / "config.json").read_bytes() == before and len(read_starts(str(workdir))) == 1
    assert pretrain(workdir, optimizer__learning_rate=0.005) == 0
    first, second = read_starts(str(workdir))
    assert (first["step"], first["last_step"], first["end"]) == (0, 4, "finished")
    assert (second["step"], second["last_step"]) == (4, 8)
    assert second["changed"] == {"optimizer.learning_rate": [0.01, 0.005]}
    assert second["settings"]["optimizer"]["learning_rate"] == 0.005
    assert second["dataset"].keys() >= {"vocabulary", "train", "validation"}
    assert json.loads((workdir / "config.json").read_text()) == second["settings"]

    assert cli.main(["export", f"--workdir={workdir}", f"--output={tmp_path}/model"]) == 0
    card = (tmp_path / "model" / "discriminator" / "README.md").read_text()
    assert "| learning rate | 0.01 (steps 1 to 4); 0.005 (steps 5 to 8) |" in card
    assert cli.main(["export", f"--workdir={workdir}", f"--output={tmp_path}/early", "--step=4"]) == 0
    card = (tmp_path / "early" / "discriminator" / "README.md").read_text()
    assert "| learning rate | 0.01 |" in card, "step 4 was not trained with the later rate"


@pytest.mark.slow
def test_a_config_that_was_edited_by_hand_is_reported_and_the_record_is_used(workdir, capsys):
    values = files.read_json(workdir / "config.json")
    values["optimizer"]["learning_rate"] = 7.0
    files.write_json(workdir / "config.json", values)
    assert read_config(str(workdir)).optimizer.learning_rate == 0.01
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.json: differs from history.jsonl (optimizer.learning_rate: 0.01 -> 7.0)" in line


@pytest.mark.slow
def test_damaged_settings_in_the_history_block_neither_a_resume_nor_a_report(pretrain, workdir, tmp_path, capsys):
    start, *others = map(json.loads, (workdir / "history.jsonl").read_text().splitlines())
    start["settings"]["optimizer"]["learning_rate"] = "fast"
    (workdir / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in (start, *others)))
    assert read_config(str(workdir)).optimizer.learning_rate == 0.01, "that of config.json"
    assert "history.jsonl, start after step 0: config.optimizer.learning_rate" in capsys.readouterr().err
    assert cli.main(["report", str(workdir), f"--output={tmp_path}/report", "--rows=0"]) == 0
    assert pretrain(workdir) == 0
    kept = (workdir / "history.jsonl").read_text().splitlines()
    assert json.loads(kept[0]) == start and len(kept) > 1 + len(others)


@pytest.mark.slow
def test_export_refuses_a_vocabulary_that_the_model_was_not_trained_with(workdir, tmp_path, capsys):
    tokens = (workdir / "vocab.txt").read_text().splitlines()
    (workdir / "vocab.txt").write_text("\n".join([*tokens[:-2], tokens[-1], tokens[-2]]) + "\n")
    assert cli.main(["export", f"--workdir={workdir}", f"--output={tmp_path}/model"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "vocab.txt: not the vocabulary that the model was trained with (SHA-256 " in line
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_shard_that_is_replaced_while_the_run_trains_stops_it_before_the_next_save(
    pretrain, packed, workdir, tmp_path, monkeypatch, capsys
):
    copy = shutil.copytree(packed, tmp_path / "packed")
    shard = next(copy.glob("*-train.tfrecord-*"))
    first_step = loop.write_workdir_files

    def replace_shard(*arguments: object) -> None:
        first_step(*arguments)
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)

    monkeypatch.setattr(loop, "write_workdir_files", replace_shard)
    assert pretrain(workdir, data__directory=copy, data__verify_shards="ends") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{shard}: damaged or replaced: replaced while the run trains on it: its SHA-256 is " in line
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["2", "4"]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_empty_split_is_found_before_the_first_step(packed, split):
    dataset = open_dataset(str(packed))
    (manifest,) = dataset.manifests
    empty = dataclasses.replace(manifest.splits[split], shards=(), rows=0)
    manifest = dataclasses.replace(manifest, splits=manifest.splits | {split: empty})
    with pytest.raises(UserError, match=f"the {split} split has no rows; wanted at least one.*--validation"):
        inputs.check_splits(Config(), dataclasses.replace(dataset, manifests=(manifest,)))
