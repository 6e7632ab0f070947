"""`electramed speedrun`: the best model in a fixed time: pre-trains, exports, fine-tunes and records the scores."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from electramed_jax.config.pretrain import Config

HELP = """Pre-trains on a fixed corpus in a fixed time, exports, fine-tunes on each task, and records the scores.

  electramed speedrun --track=cpu --corpus="corpus/*.jsonl.gz" --eval=eval --workdir=runs/record
  electramed speedrun --track=cpu --corpus="corpus/*.jsonl.gz" --proxy --workdir=runs/idea --config.optimizer.kind=muon

--eval is a folder with the corpora BC5CDR, NCBI-disease and JNLPBA, ChemProt and DDI-2013, each with train, dev and
test files. Settings after --config. are an idea to try. With --proxy the run has a tenth of the steps and is judged by
its validation losses and, with --eval, by the F1 of one seed on dev: no test set is read. A stopped command resumes if
you run it again. The rules and the records are in configs/speedrun/README.md."""
TAKES_CONFIG = "pretrain"

MAIN, REPORTED = "mean", "reported"  # whether a task counts in the mean
VOCABULARY = 10_000  # word pieces
PROXY_SHARE = 0.1  # of the steps of a track
RECORD_FILE, TABLE_FILE = "speedrun.json", "speedrun.md"


@dataclasses.dataclass(frozen=True)
class Track:
    """A budget.

    Attributes:
      recipe: of pre-training.
      minutes: largest time of pre-training, from the command to the last checkpoint.
      machine: on which a record counts.
    """

    recipe: str
    minutes: float
    machine: str


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A task that the model is fine-tuned on.

    Attributes:
      folder: below --eval, with train, dev and test files.
      recipe: of fine-tuning.
      role: MAIN or REPORTED.
      settings: in addition to the recipe's.
    """

    folder: str
    recipe: str
    role: str
    settings: Mapping[str, Any]


TRACKS = {
    "cpu": Track("speedrun_cpu", 75, "two CPU cores"),
    "gpu": Track("speedrun_gpu", 25, "one GPU like an H200"),
}
# The same for all models, and those of the published comparison of electramed_jax/finetune/README.md.
SHARED_SETTINGS: dict[str, Any] = {"seeds": 3, "optimizer.learning_rate": 5e-4, "optimizer.layerwise_lr_decay": 1.0}
ENTITIES: dict[str, Any] = {"epochs": 3.0, "ner.words": "file"}
RELATIONS: dict[str, Any] = {"epochs": 2.0}
EVALUATIONS = {
    "BC5CDR": Evaluation("BC5CDR", "finetune_ner", MAIN, ENTITIES),
    "NCBI-disease": Evaluation("NCBI-disease", "finetune_ner", MAIN, ENTITIES),
    "JNLPBA": Evaluation("JNLPBA", "finetune_ner", MAIN, ENTITIES | {"epochs": 2.0}),
    "ChemProt": Evaluation("ChemProt", "finetune_relations", REPORTED, RELATIONS),
    "DDI-2013": Evaluation("DDI-2013", "finetune_relations", REPORTED, RELATIONS),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--track", choices=sorted(TRACKS), default="cpu", help="the budget (default: cpu)")
    parser.add_argument("--corpus", required=True, nargs="+", metavar="FILES", help="text, in any format of prepare")
    parser.add_argument("--eval", metavar="DIR", help="folder of the corpora for evaluation; optional for --proxy")
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder of all files; an existing run is resumed"
    )
    parser.add_argument(
        "--proxy", action="store_true", help="a tenth of the steps, judged by validation losses and dev sets"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.console import say
    from electramed_jax.common.errors import UserError

    track, out = TRACKS[args.track], pathlib.Path(args.workdir)
    evaluations = {name: one for name, one in EVALUATIONS.items() if one.role == MAIN or not args.proxy}
    if not args.eval:
        if not args.proxy:
            raise UserError("--eval=DIR is missing: the folder of the corpora for evaluation; or add --proxy")
        evaluations = {}
    missing = [one.folder for one in evaluations.values() if not (pathlib.Path(args.eval) / one.folder).is_dir()]
    if missing:
        raise UserError(f"{args.eval}: no folder {', '.join(missing)}; wanted one for each corpus")
    out.mkdir(parents=True, exist_ok=True)
    _pack(args.corpus, track, out)
    seconds = _pretrain(args, track, out)
    scores = {name: _evaluate(one, args.eval, out, on_dev=args.proxy) for name, one in evaluations.items()}
    record = make_record(args.track, out, seconds, args.settings, scores, split="dev" if args.proxy else "test")
    (out / TABLE_FILE).write_text(to_markdown(record), encoding="utf-8")
    with open(out / RECORD_FILE, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
    say(f"\n{to_markdown(record)}\n{out / TABLE_FILE}, {out / RECORD_FILE}")
    if record["minutes"] > track.minutes and not args.proxy:
        say(f"not a record: {record['minutes']:.1f} minutes of pre-training; the track has {track.minutes:g}")
    return record


def _read_recipe(track: Track) -> Config:
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.config import recipes

    return config_lib.from_dict(recipes.read_settings(recipes.find_recipe(track.recipe).path))


def _pack(corpus: Sequence[str], track: Track, out: pathlib.Path) -> None:
    """Prepares, learns the vocabulary and packs, unless an earlier start has."""
    from electramed_jax.commands.command_runner import run_command

    settings = _read_recipe(track)
    if not (out / "documents" / "documents.json").exists():
        run_command(["prepare", "--input", *corpus, "--output", f"{out}/documents", "--test", "0.0"])
    if not (out / "vocab.txt").exists():
        size = f"--size={VOCABULARY}"
        run_command(["vocab", "--documents", f"{out}/documents", "--output", f"{out}/vocab.txt", size])
    if not (out / "packed" / "manifest.json").exists():
        run_command(
            ["pack", "--documents", f"{out}/documents", "--vocab", f"{out}/vocab.txt", "--output", f"{out}/packed",
             "--max_seq_length", str(settings.data.max_seq_length)]
        )  # fmt: skip


def _pretrain(args: argparse.Namespace, track: Track, out: pathlib.Path) -> float:
    """Pre-trains or resumes, and exports; returns the seconds of all starts, with those of compilation and saves."""
    from electramed_jax.commands.command_runner import run_command

    clock = out / "pretrain_seconds.json"
    earlier = json.loads(clock.read_text(encoding="utf-8"))["seconds"] if clock.exists() else 0.0
    command = ["pretrain", f"--config={track.recipe}", f"--config.data.directory={out}/packed", f"--workdir={out}/run"]
    if args.proxy:
        settings = _read_recipe(track)
        steps = round(PROXY_SHARE * settings.total_steps)
        command += [f"--config.total_steps={steps}", f"--config.eval_every={max(1, steps // 4)}"]
        command += [f"--config.optimizer.warmup_steps={round(PROXY_SHARE * settings.optimizer.warmup_steps)}"]
    began = time.monotonic()
    try:
        run_command([*command, *args.settings])
    finally:
        seconds = earlier + time.monotonic() - began
        clock.write_text(json.dumps({"seconds": seconds}), encoding="utf-8")
    if not (out / "models" / "discriminator").exists():
        run_command(["export", f"--workdir={out}/run", f"--output={out}/models", f"--name=speedrun-{args.track}"])
    return seconds


def _evaluate(one: Evaluation, folder: str, out: pathlib.Path, *, on_dev: bool) -> dict[str, Any]:
    """Fine-tunes on a corpus; returns the content of results.json.

    Args:
      folder: parent of the corpora.
      on_dev: one seed, without the test set.
    """
    from electramed_jax.commands.command_runner import run_command
    from electramed_jax.finetune.ner.corpus_files import ENDINGS
    from electramed_jax.finetune.task.split_files import find_split_files

    data, workdir = str(pathlib.Path(folder) / one.folder), out / "finetuned" / one.folder
    values = SHARED_SETTINGS | dict(one.settings) | {"task.data": data}
    if on_dev:
        files = find_split_files(data, {}, ENDINGS)
        values |= {"task.data": "", "task.train": files["train"], "task.dev": files["dev"], "seeds": 1}
    run_command(
        ["finetune", f"--config={one.recipe}", f"--config.init={out}/models/discriminator", f"--workdir={workdir}",
         *(f"--config.{setting}={value}" for setting, value in values.items())]
    )  # fmt: skip
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def make_record(
    track: str, out: pathlib.Path, seconds: float, settings: Sequence[str], results: Mapping[str, Any], *, split: str
) -> dict[str, Any]:
    """Returns the record of a run: its track, time, machine, code, model and scores.

    Args:
      settings: the settings of the idea, as typed.
      results: contents of results.json by corpus.
      split: "test", or "dev" for a proxy.
    """
    from electramed_jax import __version__
    from electramed_jax.pretrain.history import read_history
    from electramed_jax.training.starts import code_commit

    past = read_history(str(out / "run"))
    validation = past.split("validation")[-1]
    names = ("loss", "generator_loss", "discriminator_auc")
    scores = {
        name: one["scores"][split][one["primary"]] | {"role": EVALUATIONS[name].role} for name, one in results.items()
    }
    main = [one["mean"] for one in scores.values() if one["role"] == MAIN]
    weights = (out / "models" / "discriminator" / "model.safetensors").read_bytes()
    return {
        "track": track,
        "settings": list(settings),
        "steps": past.step,
        "tokens": past.tokens(),
        "minutes": seconds / 60,
        "validation": {name: validation[name] for name in names if name in validation},
        "split": split,
        "mean": statistics.fmean(main) if main else None,
        "scores": scores,
        "machine": f"{past.starts[-1]['devices']} x {past.starts[-1]['device_kind']}, {os.cpu_count()} CPU cores",
        "version": __version__,
        "commit": code_commit(),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def _format_score(score: Mapping[str, Any], split: str) -> str:
    """Returns the mean of the seeds and their standard deviation; a proxy, scored on dev, has one seed."""
    return f"{score['mean']:.2f}" + (f" ± {score['standard_deviation']:.2f}" if split == "test" else "")


def to_markdown(record: Mapping[str, Any]) -> str:
    """Returns the table of a record."""
    rows = [(f"validation {name}", f"{value:.3f}") for name, value in record["validation"].items()]
    rows += [
        (
            f"{name} {record['split']}" + (" (reported)" if one["role"] == REPORTED else ""),
            _format_score(one, record["split"]),
        )
        for name, one in record["scores"].items()
    ]
    if record["mean"] is not None:
        rows.append((f"mean F1 on {record['split']}", f"**{record['mean']:.2f}**"))
    rows += [
        ("steps", f"{record['steps']:,}"),
        ("tokens", f"{record['tokens'] / 1e6:.1f} M"),
        ("minutes of pre-training", f"{record['minutes']:.1f}"),
        ("settings", " ".join(record["settings"]) or "those of the track"),
        ("machine", record["machine"]),
        ("code", f"{record['version']} {record['commit'][:12]}"),
        ("SHA-256 of the discriminator", record["sha256"][:16]),
    ]
    lines = [f"| {name} | {value} |" for name, value in (("track", record["track"]), ("---", "---"), *rows)]
    return "\n".join(lines) + "\n"
