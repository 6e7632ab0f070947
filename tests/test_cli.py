"""The command line: help without JAX, user errors in one line, results as one line of JSON."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from electramed_jax import __version__, cli
from electramed_jax.common import console
from electramed_jax.common.processes import quiet_libraries
from electramed_jax.config import from_flags, settings_help

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


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version_prints_the_version(option, capsys):
    assert cli.main([option]) == 0
    assert capsys.readouterr().out == f"electramed {__version__}\n"


def test_the_command_version_prints_the_versions_of_packages(capsys):
    assert cli.main(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"electramed {__version__}"
    assert {f"{name} {importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy")} <= set(lines)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: electramed {command} ") and "--json" in shown
    with pytest.raises(SystemExit):
        cli.main(["help", command])
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_every_command_has_two_examples_that_parse(command):
    text = importlib.import_module(f"electramed_jax.commands.{cli.MODULES.get(command, command)}").HELP
    examples = re.findall(rf"^  (electramed {command}\b.*)$", text.replace("\\\n", " "), re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example.partition(" > ")[0], comments=True)
        assert cli.parse(command, words[2:])


@pytest.mark.parametrize("command", ["pretrain", "bench", "compile", "finetune"])
def test_help_lists_the_common_settings_and_help_all_every_one(command, capsys):
    kind = "finetune" if command == "finetune" else "pretrain"
    shown = {}
    for option in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            cli.main([command, option])
        text = capsys.readouterr().out
        shown[option] = [line.split()[0] for line in text.partition("\nsettings, ")[2].splitlines() if line[:2] == "  "]
    assert set(settings_help.list_names(kind)) <= set(shown["--help-all"])
    assert set(settings_help.COMMON[kind]) <= set(shown["--help"]) & set(settings_help.list_names(kind))
    assert len(shown["--help"]) < len(shown["--help-all"]) / 2


def test_help_shows_the_values_of_the_recipe(capsys):
    """ELECTRA-Base's learning rate is not the default of the settings."""
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--config", "pretrain_base", "--help"])
    shown = capsys.readouterr().out
    assert re.search(r"^  optimizer.learning_rate +0\.0002 +peak learning rate$", shown, re.MULTILINE)
    assert re.search(r"^  eval_every +5,000 steps +interval of validation$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["--config", "a", "--config.b", "1e-4"], ["--config=a", "--config.b=1e-4"]),
        (["--config.mesh.data", "-1", "--workdir", "x"], ["--config.mesh.data=-1", "--workdir", "x"]),
        (["--config.init", "", "--config.a=1"], ["--config.init=", "--config.a=1"]),
        (["--config.a", "--config.b", "2"], ["--config.a", "--config.b=2"]),
        (["--config", "--help"], ["--config", "--help"]),
    ],
)
def test_a_setting_may_be_followed_by_a_blank(words, joined):
    assert cli.join_settings(words) == joined


def test_settings_with_blanks_reach_the_config():
    _, args = cli.parse("pretrain", ["--config", "pretrain_tiny", "--config.seed", "3", "--workdir", "x"])
    assert from_flags(args.settings).seed == 3


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("electramed pre", {"prepare", "pretrain", "predict"}),
        ("electramed pretrain --work", {"--workdir "}),
        ("electramed pretrain --config=pretrain_s", {"pretrain_small "}),
        ("electramed finetune --config.task.ki", {"--config.task.kind "}),
        ("electramed compile --config.optimizer.l", {"--config.optimizer.learning_rate "}),
        ("electramed pretrain --config.objective.kind ", {"electra", "uniform", "mlm", "electric"}),
    ],
)
def test_bash_completes_commands_options_recipes_and_settings(line, found, tmp_path):
    """bash runs the printed script on the line, as for the Tab key."""
    program = tmp_path / "electramed"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m electramed_jax.cli "$@"\n')
    program.chmod(0o755)
    script = '''
        eval "$(electramed completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; COMP_TYPE=9; read -ra COMP_WORDS <<< "$1"
        [[ $1 == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _python_argcomplete electramed; printf "%s\n" "${COMPREPLY[@]}"'''
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script, "bash", line], env=environment, capture_output=True, text=True)
    assert set(done.stdout.splitlines()) == found, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_names_the_program(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    assert "electramed" in capsys.readouterr().out


def test_libtpu_without_a_tpu_is_not_started(monkeypatch):
    environment: dict[str, str] = {}
    monkeypatch.setattr(quiet_libraries, "skips_libtpu", lambda: True)
    quiet_libraries.quiet_libraries(environment)
    assert environment["JAX_PLATFORMS"] == "cpu"
    environment = {"JAX_PLATFORMS": "tpu"}
    quiet_libraries.quiet_libraries(environment)
    assert environment["JAX_PLATFORMS"] == "tpu", "the user's own value is kept"
    environment = {}
    monkeypatch.setattr(quiet_libraries, "skips_libtpu", lambda: False)
    quiet_libraries.quiet_libraries(environment)
    assert "JAX_PLATFORMS" not in environment


def test_an_unknown_command_is_an_error_that_names_the_nearest_one(capsys):
    assert cli.main(["pretain"]) == 2
    line = error_line(capsys)
    assert line == "electramed pretain: unknown command 'pretain' (did you mean pretrain?); electramed help lists them"
    assert cli.main(["xyzzy"]) == 2
    assert error_line(capsys) == "electramed xyzzy: unknown command 'xyzzy'; electramed help lists them"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", TINY], "the following arguments are required: --workdir"),
        (["pretrain", "--workdri=x", TINY], "no option --workdri (did you mean --workdir?)"),
        (
            ["pretrain", "--workdir=x", "--steps=3", TINY],
            "no option --steps (did you mean --config.total_steps?); see elec",
        ),
        (["pretrain", "--workdir=x", "--learning-rate=3", TINY], "(did you mean --config.optimizer.learning_rate?)"),
        (["pack", "--max-seq-length=3"], "no option --max-seq-length (did you mean --max_seq_length?)"),
        (["pretrain", "pretrain_small", "--workdir=x"], "(did you mean --config=pretrain_small?)"),
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
