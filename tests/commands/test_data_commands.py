from __future__ import annotations

import argparse
import gzip
import importlib
import json
import pathlib

import pytest

from electramed_jax.common.errors import UserError

KEY = "[CLS] kinase"


def run(command: str, *arguments: object) -> dict:
    """Runs a command as the command line does; its result must survive JSON."""
    module = importlib.import_module(f"electramed_jax.commands.{command}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return json.loads(json.dumps(module.run(parser.parse_args([str(a) for a in arguments]))))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[pathlib.Path, dict[str, dict]]:
    """A folder in which prepare, vocab and pack have run, and their results."""
    folder = tmp_path_factory.mktemp("made")
    lines = [json.dumps({"text": f"Kinase {n} binds receptor {n + 1}. It is an invented finding."}) for n in range(40)]
    (folder / "in.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    documents = ("--documents", folder / "documents")
    inputs = ("--input", folder / "*.gz", "--validation", 0.2, "--workers", 1)
    vocab = ("--vocab", folder / "vocab.txt", "--max_seq_length", 64, "--workers", 1)
    results = {
        "prepare": run("prepare", *inputs, "--output", folder / "documents"),
        "vocab": run("vocab", *documents, "--output", folder / "vocab.txt", "--size", 120),
        "pack": run("pack", *documents, *vocab, "--output", folder / "rows"),
    }
    return folder, results


def test_the_three_commands_lead_from_files_to_rows(made):
    _, results = made
    splits = results["prepare"]["splits"]
    assert sum(figures["documents"] for figures in splits.values()) == 40
    assert results["vocab"]["size"] <= 120
    assert results["pack"]["vocab_size"] == results["vocab"]["size"]
    for split, figures in results["pack"]["splits"].items():
        assert figures["documents"] == splits[split]["documents"]


@pytest.mark.parametrize("name", ["rows", "rows/manifest.json"])
def test_inspect_shows_rows_as_text(made, name, capsys):
    folder, results = made
    result = run("inspect", folder / name, "--rows", 2, "--verify")
    assert result["kind"] == "packed"
    assert len(result["rows"]) == 2 and result["rows"][0].startswith(KEY)
    assert result["splits"]["train"] == results["pack"]["splits"]["train"]["rows"]
    shown = capsys.readouterr().err
    assert result["rows"][0] in shown and "SHA-256" in shown


def test_inspect_shows_one_shard(made):
    folder, _ = made
    (shard,) = (folder / "rows").glob("pubmed-validation.tfrecord-*")
    result = run("inspect", shard, "--rows", 1)
    assert len(result["rows"]) == 1 and result["rows"][0].startswith(KEY)
    assert result["rows"] != run("inspect", folder / "rows", "--rows", 1)["rows"]


def test_inspect_shows_documents(made):
    folder, _ = made
    result = run("inspect", folder / "documents", "--rows", 3, "--split", "train")
    assert result["kind"] == "documents"
    assert len(result["rows"]) == 3 and result["rows"][0]["text"].startswith("Kinase ")


def test_inspect_shows_the_settings_of_a_training_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 7}')
    assert run("inspect", tmp_path) == {"kind": "training", "config": {"seed": 7}}


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("absent", (), "no such file or folder"),
        ("in.jsonl.gz", (), "not a file that inspect knows"),
        (".", (), "holds no manifest.json, documents.json or config.json"),
        ("rows", ("--split", "dev"), "split 'dev': not in .*; it has train, validation, test"),
        ("documents", ("--split", "dev"), "split 'dev': wanted one of train, validation, test"),
    ],
)
def test_inspect_says_what_it_cannot_show(made, path, arguments, message):
    with pytest.raises(UserError, match=message):
        run("inspect", made[0] / path, *arguments)


def test_prepare_takes_out_what_it_is_asked_to_and_says_what_that_was(tmp_path, capsys):
    words = [" ".join(f"word{n}x{m}" for m in range(60)) for n in range(4)]
    records = [
        {"text": words[0], "language": "eng"},
        {"text": f"other {words[0]}", "language": "eng"},
        {"text": words[1], "language": "fre"},
        {"text": words[2]},
        {"text": words[3]},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "test.txt").write_text("\n".join(f"{word} O" for word in words[2].split()))
    inputs = ("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out", "--workers", 1)
    options = ("--decontaminate", tmp_path / "*.txt", "--near_duplicates", 0.8, "--languages", "eng", "ger")
    result = run("prepare", *inputs, *options)
    assert result["dropped"] == {"held_out": 1, "language": 1, "near_duplicate": 1}
    assert sum(figures["documents"] for figures in result["splits"].values()) == 2
    assert 10_000_000 < result["peak_process_bytes"] < 10_000_000_000
    shown = capsys.readouterr().err
    assert "near_duplicate: 1" in shown
    assert "held out by test.txt: 0 by PMID, 1 by sentence" in shown
