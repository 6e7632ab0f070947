"""`electramed pack`: counts by split and the next command."""

from __future__ import annotations

import pytest
from run_command import run_command, run_pipeline

from electramed_jax.config.pretrain import from_flags


def test_pack_keeps_every_document_of_each_split(tmp_path, capsys):
    results = run_pipeline(tmp_path)
    assert results["pack"]["vocab_size"] == results["vocab"]["size"]
    for split, counts in results["pack"]["splits"].items():
        assert counts["documents"] == results["prepare"]["splits"][split]["documents"]
        assert counts["dropped_tokens"] == 0
    shown = capsys.readouterr().err
    assert "rows of 64" in shown and f"--config.data.directory={tmp_path}/rows --workdir=DIR" in shown


def test_pack_in_electra_format_reports_dropped_tokens(tmp_path, capsys):
    run_pipeline(tmp_path)
    capsys.readouterr()
    paths = ("--documents", tmp_path / "documents", "--vocab", tmp_path / "vocab.txt", "--output", tmp_path / "electra")
    result = run_command("pack", *paths, "--max_seq_length", 64, "--format", "electra", "--workers", 1)
    assert result["format"] == "electra"
    shown = capsys.readouterr().err
    assert "of the tokens dropped, which did not fit their row; --format packed drops none" in shown


@pytest.mark.parametrize(("length", "setting"), [(64, ""), (512, ""), (1024, "--config.model.max_positions=1024 ")])
def test_the_next_command_has_a_position_table_for_the_rows(tmp_path, capsys, length, setting):
    run_pipeline(tmp_path)
    capsys.readouterr()
    paths = ("--documents", tmp_path / "documents", "--vocab", tmp_path / "vocab.txt", "--output", tmp_path / "long")
    run_command("pack", *paths, "--max_seq_length", length, "--workers", 1)
    (command,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next: ")]
    assert f"--config=configs/pretrain_small.py {setting}--config.data.directory={tmp_path}/long" in command
    settings = [word for word in command.split() if word.startswith("--config")]
    assert from_flags(settings).model.max_positions >= length
