"""`electramed pack`: counts by split and the next command."""

from __future__ import annotations

import dataclasses
import json

import pytest
from run_command import run_command, run_pipeline

from electramed_jax.commands import pack
from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import from_flags
from electramed_jax.data.dataset.manifest import read_manifest


def test_pack_keeps_every_document_of_each_split(tmp_path, capsys):
    results = run_pipeline(tmp_path)
    assert results["pack"]["vocab_size"] == results["vocab"]["size"]
    for split, counts in results["pack"]["splits"].items():
        assert counts["documents"] == results["prepare"]["splits"][split]["documents"]
        assert counts["dropped_tokens"] == 0
    shown = capsys.readouterr().err
    assert "rows of 64" in shown and f"--config.data.directory={tmp_path}/rows --workdir=runs/tiny" in shown


def test_pack_in_electra_format_reports_dropped_tokens(tmp_path, capsys):
    run_pipeline(tmp_path)
    capsys.readouterr()
    paths = ("--documents", tmp_path / "documents", "--vocab", tmp_path / "vocab.txt", "--output", tmp_path / "electra")
    result = run_command("pack", *paths, "--max_seq_length", 64, "--format", "electra", "--workers", 1)
    assert result["format"] == "electra"
    shown = capsys.readouterr().err
    assert "of the tokens dropped, which did not fit their row; --format packed drops none" in shown


def test_name_and_licence_of_the_documents_are_in_the_manifest_and_pack_can_replace_them(tmp_path):
    run_pipeline(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"text": "Invented kinases bind invented receptors in invented mice."}\n' * 2)
    texts = ("--input", tmp_path / "a.jsonl", "--output", tmp_path / "named", "--validation", 0, "--test", 0)
    run_command("prepare", *texts, "--name", "my_papers", "--license", "CC BY 4.0", "--workers", 1)
    paths = (
        "--documents",
        tmp_path / "named",
        "--vocab",
        tmp_path / "vocab.txt",
        "--max_seq_length",
        64,
        "--workers",
        1,
    )
    run_command("pack", *paths, "--output", tmp_path / "first")
    first = read_manifest(str(tmp_path / "first"))
    assert (first.name, first.license, first.sources[0]["licenses"]) == ("my_papers", "CC BY 4.0", {"CC BY 4.0": 1})
    assert (tmp_path / "first" / "my_papers-train.tfrecord-00000-of-00001").exists()
    run_command("pack", *paths, "--output", tmp_path / "second", "--name", "other", "--license", "CC0")
    second = read_manifest(str(tmp_path / "second"))
    assert (second.name, second.license) == ("other", "CC0")
    assert read_manifest(str(tmp_path / "rows")).name == "pubmed"


def test_a_cased_vocabulary_without_cased_is_reported(tmp_path, capsys):
    run_pipeline(tmp_path)
    vocab = (tmp_path / "vocab.txt").read_text()
    paths = ("--documents", tmp_path / "documents", "--max_seq_length", 64, "--workers", 1)
    for name, words, message in (
        ("cased", ["Kinase", "Receptor", "Mice", "Rats"], "is a cased vocabulary (4 of"),
        ("accented", ["été", "élève", "naïf", "där"], "removed from lower-cased text; pack with --keep_accents"),
        ("plain", [], ""),
    ):
        (tmp_path / f"{name}.txt").write_text(vocab + "".join(f"{word}\n" for word in words))
        capsys.readouterr()
        run_command("pack", *paths, "--vocab", tmp_path / f"{name}.txt", "--output", tmp_path / name)
        shown = capsys.readouterr().err
        assert message in shown and ("warning" in shown) == bool(message)
    run_command("pack", *paths, "--vocab", tmp_path / "cased.txt", "--output", tmp_path / "with_cased", "--cased")
    run_command("pack", *paths, "--vocab", tmp_path / "accented.txt", "--output", tmp_path / "with", "--keep_accents")
    assert "lower-cased text" not in capsys.readouterr().err


def test_accents_are_kept_from_the_vocabulary_to_the_rows(tmp_path, capsys):
    texts = [
        json.dumps({"text": f"Élève naïf {n} à l'école. Les élèves du lycée ont passé un bel été là-bas."})
        for n in range(40)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(texts))
    documents, vocab, one = tmp_path / "documents", tmp_path / "vocab.txt", ("--workers", 1)
    run_command("prepare", "--input", tmp_path / "in.jsonl", "--output", documents, *one)
    run_command("vocab", "--documents", documents, "--output", vocab, "--size", 120, "--keep_accents", *one)
    assert f"--vocab {vocab} --keep_accents --max_seq_length" in capsys.readouterr().err
    paths = ("--documents", documents, "--vocab", vocab, "--max_seq_length", 64, *one)
    run_command("pack", *paths, "--output", tmp_path / "rows", "--keep_accents")
    assert read_manifest(str(tmp_path / "rows")).keep_accents
    capsys.readouterr()
    run_command("inspect", tmp_path / "rows")
    assert "élève naïf" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds another dataset .keep_accents=True, not False"):
        run_command("pack", *paths, "--output", tmp_path / "rows")
    with pytest.raises(UserError, match="--cased keeps accents too"):
        run_command("pack", *paths, "--output", tmp_path / "both", "--cased", "--keep_accents")


@pytest.mark.parametrize(("length", "setting"), [(64, ""), (512, ""), (1024, "--config.model.max_positions=1024 ")])
def test_the_next_command_has_a_position_table_for_the_rows(tmp_path, capsys, length, setting):
    run_pipeline(tmp_path)
    capsys.readouterr()
    paths = ("--documents", tmp_path / "documents", "--vocab", tmp_path / "vocab.txt", "--output", tmp_path / "long")
    run_command("pack", *paths, "--max_seq_length", length, "--workers", 1)
    (command,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("next: ")]
    assert f"--config=pretrain_tiny {setting}--config.data.directory={tmp_path}/long" in command
    settings = [word for word in command.split() if word.startswith("--config")]
    assert from_flags(settings).model.max_positions >= length


def test_the_next_command_is_for_a_corpus_of_this_size(tmp_path, capsys):
    run_pipeline(tmp_path)
    packed = read_manifest(str(tmp_path / "rows"))
    large = dataclasses.replace(packed.splits["train"], tokens=20_000_000)
    assert "--config=pretrain_tiny" in pack._next_line("rows", packed)
    splits = packed.splits | {"train": large}
    assert "--config=pretrain_small" in pack._next_line("rows", dataclasses.replace(packed, splits=splits))
    splits = packed.splits | {"validation": dataclasses.replace(large, rows=0)}
    assert "--validation 0.1" in pack._next_line("rows", dataclasses.replace(packed, splits=splits))
