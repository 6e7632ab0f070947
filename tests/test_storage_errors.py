"""Every command ends with one line and exit code 2 where it cannot write: read-only disks, quotas, failing disks."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pathlib
import shutil
import subprocess

import exported
import pytest
import quick_run
import saved_run
from small_disk import small_disk

from electramed_jax import cli

__all__ = ["small_disk"]  # a fixture


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> pathlib.Path:
    """A folder with valid inputs of every command."""
    folder = tmp_path_factory.mktemp("inputs")
    with contextlib.redirect_stderr(io.StringIO()):
        saved_run.pack(folder)  # text.jsonl, documents, vocab.txt, rows
        saved_run.save(str(folder / "rows"), folder / "run")
        assert cli.main(["export", f"--workdir={folder}/run", f"--output={folder}/hf"]) == 0
        exported.exported(str(folder / "tagger"), "ner")
    (folder / "corpus").mkdir()
    for split in ("train", "dev"):
        (folder / "corpus" / f"{split}.txt").write_text("aspirin B-Drug\nbinds O\n\nfever O\n")
    return folder


CONFIGS = quick_run.REPOSITORY / "configs"
# The command writes to {out}; the others are folders of the fixture `inputs`.
COMMANDS = {
    "prepare": ["--input={in}/text.jsonl", "--output={out}/documents", "--workers=1"],
    "vocab": ["--documents={in}/documents", "--output={out}/vocab.txt", "--size=90"],
    "pack": ["--documents={in}/documents", "--vocab={in}/vocab.txt", "--output={out}/rows", "--max_seq_length=32"],
    "pretrain": [f"--config={CONFIGS}/pretrain_tiny.py", "--config.data.directory={in}/rows", "--workdir={out}/run"],
    "export": ["--workdir={in}/run", "--output={out}/hf"],
    "import": ["--input={in}/hf", "--data={in}/rows", "--output={out}/continued.py"],
    "report": ["{in}/run", "--output={out}/report", "--rows=0"],
    "predict": ["--model={in}/tagger", "--input={in}/text.jsonl", "--output={out}/entities.jsonl"],
    "finetune": [
        f"--config={CONFIGS}/finetune_ner.py",
        "--config.init={in}/hf/discriminator",
        "--config.task.data={in}/corpus",
        "--config.task.max_seq_length=32",
        "--workdir={out}/tagger",
    ],
    "bench": ["prepare", "--input={in}/text.jsonl", "--workers=1"],  # in a temporary folder
}


def run(command: str, inputs: pathlib.Path, output: pathlib.Path) -> int:
    words = [word.replace("{in}", str(inputs)).replace("{out}", str(output)) for word in COMMANDS[command]]
    return cli.main([command, *words])


def check_one_line(capsys, command: str) -> str:
    """Returns the error, which must be the last line and the only one of its kind."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith(f"electramed {command}: "), error
    return last


@pytest.fixture
def read_only(small_disk) -> pathlib.Path:
    folder = small_disk(1 << 20)
    done = subprocess.run(["mount", "-o", "remount,ro", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a read-only file system: {done.stderr.strip()}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "bench"])
def test_a_read_only_file_system_is_one_line(command, inputs, read_only, capsys):
    assert run(command, inputs, read_only) == 2
    line = check_one_line(capsys, command)
    assert "read-only file system; choose a folder on another one" in line and str(read_only) in line


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_refuses_new_folders_and_files_is_one_line(command, number, inputs, tmp_path, monkeypatch, capsys):
    """Stands in for a used-up quota and a failing disk, which a test cannot mount."""
    original_open, original_mkdir = open, os.mkdir
    before = {inputs, *inputs.rglob("*")}

    def refuse(path: object) -> None:
        if not isinstance(path, int) and pathlib.Path(os.fsdecode(os.fspath(path))) not in before:
            raise OSError(number, os.strerror(number), os.fspath(path))

    def failing_open(path, mode="r", *args, **kwargs):
        if set(mode) & set("wxa+"):
            refuse(path)
        return original_open(path, mode, *args, **kwargs)

    def failing_mkdir(path, *args, **kwargs):
        refuse(path)
        return original_mkdir(path, *args, **kwargs)

    monkeypatch.setattr("builtins.open", failing_open)
    monkeypatch.setattr(os, "mkdir", failing_mkdir)
    assert run(command, inputs, tmp_path / "out") == 2
    check_one_line(capsys, command)


@pytest.mark.slow
def test_commands_that_only_read_work_on_a_read_only_file_system(inputs, small_disk, capsys, tmp_path):
    disk = small_disk(64 << 20)
    for name in ("run", "rows", "documents", "tagger"):
        shutil.copytree(inputs / name, disk / name)
    done = subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs to mount a read-only file system: {done.stderr.strip()}")
    for words in (
        ["inspect", f"{disk}/rows"],
        ["inspect", f"{disk}/documents"],
        ["report", f"{disk}/run", f"--output={tmp_path}/report", "--rows=0"],
        ["export", f"--workdir={disk}/run", f"--output={tmp_path}/hf"],
        ["predict", f"--model={disk}/tagger", "--text=aspirin binds"],
    ):
        assert cli.main(words) == 0, words
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_the_system_from_a_library_is_one_line_with_the_file(monkeypatch, capsys):
    from electramed_jax.commands import inspect

    def fail(args):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/plot.png")

    monkeypatch.setattr(inspect, "run", fail)
    assert cli.main(["inspect", "x"]) == 2
    assert capsys.readouterr().err == (
        "electramed inspect: /data/plot.png: read-only file system; choose a folder on another one\n"
    )
    assert cli.main(["inspect", "x", "--verbose"]) == 2
    assert capsys.readouterr().err.startswith("Traceback"), "--verbose shows where"


SECRETS = {
    "WANDB_API_KEY": "wandb-5ecre7-a1b2c3",
    "HF_TOKEN": "hf_5ecre7a1b2c3",
    "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/5ecre7.json",
    "AWS_SECRET_ACCESS_KEY": "aws-5ecre7-a1b2c3",
}


@pytest.mark.slow
def test_keys_of_trackers_and_services_are_in_no_file_and_no_line(inputs, tmp_path, monkeypatch, capsys):
    """Looks into every file that a run, its report and its export write, and into all output."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    run_options = quick_run.settings(inputs / "rows", total_steps=2, eval_every=2, save_every=2, log_every=1)
    workdir = f"--workdir={tmp_path}/run"
    assert cli.main(["pretrain", *run_options, "--config.optimizer.warmup_steps=1", workdir, "--json"]) == 0
    assert cli.main(["report", f"{tmp_path}/run", "--rows=0", "--json"]) == 0
    assert cli.main(["export", workdir, f"--output={tmp_path}/hf", "--json", "--verbose"]) == 0
    assert cli.main(["doctor", "--json"]) in (0, 2, 3)
    captured = capsys.readouterr()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.json", "metrics.jsonl", "README.md", "report.html"} <= {path.name for path in written}
    for name, value in SECRETS.items():
        assert value not in captured.out + captured.err, name
        assert [path for path in written if value.encode() in path.read_bytes()] == [], name
