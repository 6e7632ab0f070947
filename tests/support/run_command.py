"""Runs a command's module without the command line, for tests of results."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import pathlib


def run_command(command: str, *arguments: object) -> dict:
    """Parses the arguments and runs the command; returns its result after a round trip through JSON."""
    module = importlib.import_module(f"electramed_jax.commands.{command}")
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return json.loads(json.dumps(module.run(parser.parse_args([str(argument) for argument in arguments]))))


def run_pipeline(folder: pathlib.Path) -> dict[str, dict]:
    """Runs prepare, vocab and pack on 40 generated documents; returns their results.

    The folder then contains `in.jsonl.gz`, `documents`, `vocab.txt` and `rows`.
    """
    lines = [json.dumps({"text": f"Kinase {n} binds receptor {n + 1}. It is an invented finding."}) for n in range(40)]
    (folder / "in.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    documents = ("--documents", folder / "documents")
    inputs = ("--input", folder / "*.gz", "--validation", 0.2, "--workers", 1)
    vocab = ("--vocab", folder / "vocab.txt", "--max_seq_length", 64, "--workers", 1)
    return {
        "prepare": run_command("prepare", *inputs, "--output", folder / "documents"),
        "vocab": run_command("vocab", *documents, "--output", folder / "vocab.txt", "--size", 120),
        "pack": run_command("pack", *documents, *vocab, "--output", folder / "rows"),
    }
