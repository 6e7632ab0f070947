"""`electramed bench`: timings, rates that follow from them, and errors in one line."""

from __future__ import annotations

import json
import pathlib

import jax
import pytest
import quick
import quick_run

from electramed_jax import cli
from electramed_jax.data.synthetic import pubmed_xml

CONFIG = f"--config={pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'pretrain_tiny.py'}"
TINY = [
    *(f"--config.{name}={value}" for name, value in quick_run.SETTINGS.items()),
    CONFIG,
    "--vocab_size=100",
    "--max_seq_length=16",
    "--warm_up=1",
    "--repeats=2",
    "--json",
]


@pytest.fixture
def fast_compilation(monkeypatch):
    """Compiles with few optimizations: the tests check the command, not its speed."""
    monkeypatch.setattr(jax, "jit", quick.jit)


def result_of(capsys, *arguments: object) -> dict:
    assert cli.main([*map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_step_is_timed_and_profiled_on_random_rows(capsys, tmp_path, fast_compilation):
    result = result_of(capsys, "bench", "step", *TINY, f"--profile={tmp_path}")
    seconds = result["seconds"]["step"]
    assert len(seconds["all"]) == 2 and 0 < seconds["min"] <= seconds["median"] <= seconds["max"] < seconds["first"]
    tokens = result["tokens_per_second"] * seconds["median"]
    assert 8 * 16 * 0.5 < tokens <= 8 * 16
    assert result["model_flops_per_second"] == pytest.approx(result["model_flops"] / seconds["median"])
    assert result["machine"]["jax"] == jax.__version__ and result["machine"]["device"] == jax.devices()[0].device_kind
    assert list(tmp_path.glob("plugins/profile/*/perfetto_trace.json.gz"))
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


@pytest.mark.slow
def test_a_checkpoint_is_timed_in_the_output_folder(capsys, tmp_path, fast_compilation):
    result = result_of(capsys, "bench", "checkpoint", *TINY, f"--output={tmp_path}")
    seconds = {name: timing["median"] for name, timing in result["seconds"].items()}
    assert 0 < seconds["pause"] <= seconds["save"] and seconds["restore"] > 0
    assert (tmp_path / "checkpoints" / "2").is_dir() and result["state_bytes"] > 0
    assert cli.main(["bench", "checkpoint", *TINY, f"--output={tmp_path}"]) == 2, (
        "a folder that is not empty must not be written to"
    )


def test_prepare_is_timed_on_the_input_files(capsys, tmp_path):
    pubmed_xml.write_pubmed_xml(str(tmp_path), articles=60, num_files=1)
    counts = ["--warm_up=1", "--repeats=2", "--workers=1", "--json"]
    result = result_of(capsys, "bench", "prepare", f"--input={tmp_path}/*.xml.gz", *counts)
    assert 50 < result["documents"] <= 60
    assert result["documents_per_second"] == pytest.approx(result["documents"] / result["seconds"]["prepare"]["median"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "prepare needs --input"),
        (["prepare", "--input=x", "--profile=y"], "--profile does not work with prepare"),
        (["data", CONFIG], "no dataset; add --config.data.directory=DIR"),
        (["data", CONFIG, "--batches=0"], "--batches=0: wanted 1 or more"),
        (["stp"], "invalid choice: 'stp'"),
    ],
)
def test_a_user_error_is_one_line(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("electramed bench: ") and message in line
