"""`electramed evaluate`: computes the metrics of a checkpoint on a split."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

HELP = """Computes the metrics of a pre-training checkpoint on the validation or test rows of its dataset, with fixed
masks; or the scores of a fine-tuned model on another file.

  electramed evaluate --workdir=runs/small --split=test
  electramed evaluate --workdir=runs/small --step=5000 --data=packed/other --batches=10
  electramed evaluate --workdir=runs/ncbi --input=BC5CDR/test.txt --output=scores/ncbi-on-bc5cdr

A fine-tuned model needs --input, a file in a form that its training files may have, and its training file at its old
place. --output gets scores.json, predictions.txt and records.jsonl."""

PRETRAINED_OPTIONS = ("step", "data", "batches", "split")
FINETUNED_OPTIONS = ("input", "seed", "gold", "output")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder that electramed pretrain or finetune wrote"
    )
    parser.add_argument("--step", type=int, metavar="N", help="step of the checkpoint (default: the newest)")
    parser.add_argument("--split", help="validation, test or train (default: validation)")
    parser.add_argument(
        "--data", metavar="DIR", help="packed folder, or several separated by commas (default: that of the training)"
    )
    parser.add_argument("--batches", type=int, metavar="N", help="number of batches (default: the whole split)")
    parser.add_argument("--input", metavar="FILE", help="fine-tuned model: file to score it on")
    parser.add_argument("--gold", metavar="FILE", help="fine-tuned model: BioASQ's golden files, if --input has none")
    parser.add_argument("--seed", type=int, metavar="N", help="fine-tuned model: seed (default: the best on dev)")
    parser.add_argument("--output", metavar="DIR", help="fine-tuned model: folder for scores and predictions")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.processes import distributed
    from electramed_jax.finetune.training import workdir

    finetuned = workdir.is_finetuned(args.workdir)
    for option in PRETRAINED_OPTIONS if finetuned else FINETUNED_OPTIONS:
        if getattr(args, option) is not None:
            kind = "fine-tuned" if finetuned else "pre-trained"
            raise UserError(f"--{option} does not apply to {args.workdir}, which contains a {kind} model; omit it")
    if finetuned and not args.input:
        raise UserError(
            f"{args.workdir}: a fine-tuned model, with its scores on its own files in results.md; add --input=FILE to "
            "score it on another file"
        )
    with distributed.distributed_context():
        evaluated = _evaluate_finetuned(args) if finetuned else _evaluate(args)
        return evaluated | {"is_worker": not distributed.is_main()}


def _evaluate_finetuned(args: argparse.Namespace) -> dict[str, Any]:
    import json

    from electramed_jax.common.processes import distributed
    from electramed_jax.common.processes.main_console import log_main, warn_main
    from electramed_jax.common.storage import files
    from electramed_jax.finetune.analysis.evaluate_file import evaluate_file

    found = evaluate_file(args.workdir, args.input, args.seed, args.gold or "")
    for name in dict.fromkeys((found.primary, *found.scores)):
        if "/" not in name:
            log_main(f"{name:<26} {found.scores[name]:.2f}")
    for warning in found.warnings:
        warn_main(f"warning: {warning}")
    result = {"workdir": args.workdir, "seed": found.seed, "input": args.input, "scores": found.scores}
    if args.output and distributed.is_main():
        lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in found.records)
        files.write_text(files.join(args.output, "predictions.txt"), found.predictions)
        files.write_text(files.join(args.output, "records.jsonl"), lines)
        files.write_json(files.join(args.output, "scores.json"), result | {"warnings": found.warnings})
        log_main(f"wrote {args.output}")
    return result | {"warnings": found.warnings}


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    import jax

    from electramed_jax.common.processes.main_console import log_main
    from electramed_jax.config.pretrain import MeshConfig
    from electramed_jax.data.dataset.loader import ordered_batches
    from electramed_jax.pretrain import evaluate, loop, workdir
    from electramed_jax.pretrain.checkpoint import load_pretrained_state
    from electramed_jax.pretrain.step import jit_eval_step
    from electramed_jax.training import sharding

    config = workdir.read_config(args.workdir)
    if args.data:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=args.data))
    config, dataset = loop.resolve_with_dataset(config)
    split = args.split or "validation"
    mesh = sharding.make_mesh(MeshConfig())  # the devices of this machine, not those of the training
    with jax.set_mesh(mesh):
        state = load_pretrained_state(args.workdir, mesh, args.step)[1]
        rows = sharding.batch_sharding(mesh)
        batches = ordered_batches(dataset, split, config.batch_size, rows, args.batches)
        metrics = evaluate.evaluate(state.params, batches, jit_eval_step(config, mesh), config)
    assert metrics is not None  # None only if a preemption ends the evaluation, which this command does not check for
    metrics["unigram_cross_entropy"] = dataset.manifest.splits[split].unigram_cross_entropy
    for name, value in metrics.items():
        log_main(f"{name:<26} {value:.4f}")
    return {"workdir": args.workdir, "step": int(state.step), "split": split} | metrics
