"""`electramed vocab`: size and file of a vocabulary."""

from __future__ import annotations

from run_command import run_command, run_pipeline


def test_vocab_writes_at_most_size_tokens_and_prints_the_next_command(tmp_path, capsys):
    result = run_pipeline(tmp_path)["vocab"]
    assert len((tmp_path / "vocab.txt").read_text().splitlines()) == result["size"] <= 120
    next_command = f"next: electramed pack --documents {tmp_path}/documents --vocab {tmp_path}/vocab.txt"
    assert f"{next_command} --max_seq_length 512 --output DIR" in capsys.readouterr().err


def test_vocab_reports_a_corpus_with_too_few_tokens(tmp_path, capsys):
    run_pipeline(tmp_path)
    capsys.readouterr()
    output = tmp_path / "large.txt"
    result = run_command("vocab", "--documents", tmp_path / "documents", "--output", output, "--size", 50_000)
    assert result["size"] < 50_000
    assert f"{output}: {result['size']:,} tokens (the corpus has no further ones)" in capsys.readouterr().err
