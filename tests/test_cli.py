"""The command line: help without JAX, user errors in one line, results as one line of JSON."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from electramed_jax import __version__, cli
from electramed_jax.common import console

TINY = f"--config={pathlib.Path(__file__).resolve().parents[1] / 'configs' / 'pretrain_tiny.py'}"


def error_line(capsys) -> str:
    """Returns the one line of standard error; standard output must be empty."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


def test_help_lists_every_command_without_importing_slow_packages():
    code = (
        "import sys; from electramed_jax import cli; code = cli.main(['--help']);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"jax", "flax", "numpy", "orbax", "ml_collections", "tokenizers"}.isdisjoint(done.stderr.split())
    for command, text in cli.COMMANDS.items():
        assert f"  {command} " in done.stdout and text in done.stdout


def test_no_arguments_print_the_same_overview_as_help(capsys):
    assert cli.main([]) == 0
    overview = capsys.readouterr().out
    assert cli.main(["-h"]) == 0
    assert capsys.readouterr().out == overview


def test_version_prints_the_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"electramed {__version__}\n"


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: electramed {command} ") and "--json" in shown


def test_an_unknown_command_is_an_error_that_lists_the_commands(capsys):
    assert cli.main(["pretain"]) == 2
    line = error_line(capsys)
    assert line.startswith("electramed pretain: unknown command 'pretain'; wanted one of quickstart, download")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--workdri=x", TINY], "the following arguments are required: --workdir"),
        (["pretrain", "--workdir=x", "--steps=3", TINY], "unrecognized arguments: --steps=3"),
        (["pretrain", "--workdir=x", "--stop_after=soon", TINY], "argument --stop_after: invalid int value: 'soon'"),
        (["pretrain", "--workdir=x"], "no config file; add --config=pretrain_small"),
        (["pretrain", "--workdir=x", TINY], "no dataset; add --config.data.directory=DIR"),
        (
            ["pretrain", "--workdir=x", TINY, "--config.seeds=1"],
            "config.seeds: no such setting; did you mean config.seed?",
        ),
        (["pretrain", "--workdir=x", TINY, "--config.data.directory=nowhere"], "nowhere"),
        (["evaluate", "--workdir=nowhere"], "nowhere: no config.json; not a training workdir"),
        (["evaluate", "--workdir=x", "--config.seed=1"], "takes no --config.seed; see electramed evaluate --help"),
        (["inspect", "nowhere"], "nowhere: no such file or folder"),
        (["inspect"], "the following arguments are required: path; see electramed inspect --help"),
        (["prepare", "--input", "nowhere.xml", "--output", "x"], "nowhere.xml: no such file and no match"),
    ],
)
def test_a_user_error_is_one_line_with_the_next_step(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    line = error_line(capsys)
    assert line.startswith(f"electramed {arguments[0]}: ") and message in line
    assert list(tmp_path.iterdir()) == []


def test_a_user_error_of_a_process_has_exit_code_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "electramed_jax.cli", "inspect", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "electramed inspect: nowhere: no such file or folder; check the path\n"


def test_a_keyboard_interrupt_prints_no_traceback(capsys, monkeypatch):
    from electramed_jax.commands import inspect

    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "run", interrupted)
    assert cli.main(["inspect", "x"]) == 130
    assert error_line(capsys) == "electramed inspect: interrupted; run the same command again to resume"


@pytest.fixture
def documents(tmp_path) -> str:
    lines = [json.dumps({"text": f"Invented kinase {n} binds invented receptor {n + 1}."}) for n in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    output = str(tmp_path / "documents")
    arguments = ["prepare", "--input", str(tmp_path / "in.jsonl"), "--output", output, "--workers", "1"]
    assert cli.main(arguments) == 0
    return output


def test_json_prints_one_line_to_standard_output(documents, capsys):
    capsys.readouterr()
    assert cli.main(["inspect", documents, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["kind"] == "documents"


def test_without_json_standard_output_stays_empty(documents, capsys):
    capsys.readouterr()
    assert cli.main(["inspect", documents]) == 0
    captured = capsys.readouterr()
    assert captured.out == "" and "invented kinase" in captured.err.lower()


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["pack", "--documents=d", "--vocab=v", "--output=o", "--row_length=64"], "max_seq_length", 64),
        (["compile", "--topology=v5e:4x4", "--row_length=64"], "max_seq_length", 64),
        (["bench", "step", "--row_length=64"], "max_seq_length", 64),
        (["prepare", "--input", "a", "--output", "o", "--exclude", "b", "c"], "decontaminate", ["b", "c"]),
        (["doctor", "--together"], "multihost", True),
    ],
)
def test_earlier_names_of_options_still_work(arguments, name, value):
    _, args = cli.parse(arguments[0], arguments[1:])
    assert getattr(args, name) == value


# ---- verbosity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_accepts_quiet_or_verbose_but_not_both(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert "[--quiet | --verbose]" in capsys.readouterr().out.replace("\n", " ")
    assert cli.main([command, "--quiet", "--verbose"]) == 2
    assert "--verbose: not allowed with argument --quiet" in error_line(capsys)


def test_verbose_prints_the_traceback_of_a_user_error(capsys):
    assert cli.main(["inspect", "nowhere", "--verbose"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1].startswith("electramed inspect: nowhere: no such")


def test_a_nested_command_inherits_the_level_of_the_outer_one(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("A kinase binds the receptor of the cell, and the receptor answers at once.")
    prepare = ["prepare", "--input", str(tmp_path / "a.txt"), "--validation=0", "--test=0"]
    with console.at_level(console.QUIET):
        assert cli.main([*prepare, f"--output={tmp_path / 'quiet'}"]) == 0
    assert capsys.readouterr().err == ""
    assert cli.main([*prepare, f"--output={tmp_path / 'loud'}"]) == 0
    assert "train: 1 documents" in capsys.readouterr().err
