"""`electramed vocab`: size and file of a vocabulary."""

from __future__ import annotations

from run_command import run_command, run_pipeline

from electramed_jax import cli


def test_vocab_writes_at_most_size_tokens_and_prints_the_next_command(tmp_path, capsys):
    result = run_pipeline(tmp_path)["vocab"]
    assert len((tmp_path / "vocab.txt").read_text().splitlines()) == result["size"] <= 120
    next_command = f"next: electramed pack --documents {tmp_path}/documents --vocab {tmp_path}/vocab.txt"
    assert f"{next_command} --max_seq_length 128 --output packed" in capsys.readouterr().err


def test_vocab_reports_a_corpus_with_too_few_tokens(tmp_path, capsys):
    run_pipeline(tmp_path)
    capsys.readouterr()
    output = tmp_path / "large.txt"
    result = run_command("vocab", "--documents", tmp_path / "documents", "--output", output, "--size", 50_000)
    assert result["size"] < 50_000
    assert f"{output}: {result['size']:,} tokens (the corpus has no further ones)" in capsys.readouterr().err


def test_vocab_replaces_a_file_only_if_asked_to(tmp_path, capsys):
    run_pipeline(tmp_path)
    arguments = ["vocab", "--documents", f"{tmp_path}/documents", "--output", f"{tmp_path}/vocab.txt", "--size", "120"]
    before = (tmp_path / "vocab.txt").read_bytes()
    (tmp_path / "vocab.txt").write_bytes(before + b"added\n")
    assert cli.main(arguments) == 2
    assert "vocab.txt: exists; datasets packed with it need it unchanged" in capsys.readouterr().err
    assert (tmp_path / "vocab.txt").read_bytes() == before + b"added\n"
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert (tmp_path / "vocab.txt").read_bytes() == before
