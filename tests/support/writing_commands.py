"""Every command that writes files, on small valid inputs."""

from __future__ import annotations

import contextlib
import io
import pathlib

import exported
import quick_run
import saved_run

from electramed_jax import cli

CONFIGS = quick_run.REPOSITORY / "configs"
# The command writes to {out}; the others are paths of `write_inputs`.
COMMANDS = {
    "prepare": ["--input={in}/text.jsonl", "--output={out}/documents", "--workers=1"],
    "vocab": ["--documents={in}/documents", "--output={out}/vocab.txt", "--size=90"],
    "pack": ["--documents={in}/documents", "--vocab={in}/vocab.txt", "--output={out}/rows", "--max_seq_length=32"],
    "pretrain": [
        *quick_run.settings(pathlib.Path("{in}/rows"), total_steps=12, save_every=6, eval_every=6),
        "--workdir={out}/run",
    ],
    "export": ["--workdir={in}/run", "--output={out}/hf"],
    "import": ["--input={in}/hf", "--data={in}/rows", "--output={out}/continued.py"],
    "report": ["{in}/run", "--output={out}/report", "--rows=0"],
    "predict": ["--model={in}/tagger", "--input={in}/text.jsonl", "--output={out}/entities.jsonl"],
    "finetune": [
        f"--config={CONFIGS}/finetune_ner.py",
        "--config.init={in}/hf/discriminator",
        "--config.task.data={in}/corpus",
        "--config.task.max_seq_length=32",
        "--config.epochs=1",
        "--config.seeds=1",
        "--workdir={out}/tagger",
    ],
    "bench": ["prepare", "--input={in}/text.jsonl", "--workers=1"],  # in a temporary folder
}


def write_inputs(folder: pathlib.Path) -> None:
    """Writes valid inputs of every command into a folder."""
    with contextlib.redirect_stderr(io.StringIO()):
        saved_run.pack(folder)  # text.jsonl, documents, vocab.txt, rows
        saved_run.save(str(folder / "rows"), folder / "run")
        assert cli.main(["export", f"--workdir={folder}/run", f"--output={folder}/hf"]) == 0
        exported.exported(str(folder / "tagger"), "ner")
    (folder / "corpus").mkdir()
    for split in ("train", "dev"):
        (folder / "corpus" / f"{split}.txt").write_text("aspirin B-Drug\nbinds O\n\nfever O\n")


def run(command: str, inputs: pathlib.Path, output: pathlib.Path) -> int:
    """Runs a command on `write_inputs`' folder; returns its exit code."""
    words = [word.replace("{in}", str(inputs)).replace("{out}", str(output)) for word in COMMANDS[command]]
    return cli.main([command, *words])
