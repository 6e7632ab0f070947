"""Every command ends with one line and exit code 2 where it cannot write: read-only disks, quotas, failing disks."""

from __future__ import annotations

import errno
import os
import pathlib
import shutil

import pytest
import quick_run
from small_disk import set_read_only, small_disk
from writing_commands import COMMANDS, run, write_inputs

from electramed_jax import cli

__all__ = ["small_disk"]  # a fixture


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> pathlib.Path:
    """A folder with valid inputs of every command."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


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
    set_read_only(folder)
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
    set_read_only(disk)
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
