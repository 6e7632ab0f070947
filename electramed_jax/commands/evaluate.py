"""`electramed evaluate`: metrics of a checkpoint on a held-out split."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

HELP = """Measures a checkpoint on the validation or test rows of its dataset, with fixed masks.

  electramed evaluate --workdir=runs/small --split=test"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, help="what electramed pretrain wrote")
    parser.add_argument("--step", type=int, help="checkpoint to measure; default: the newest")
    parser.add_argument("--split", default="validation", help="validation (default), test or train")
    parser.add_argument("--data", help="packed folder, or several with commas between; default: what it was trained on")
    parser.add_argument("--batches", type=int, help="measure on so many batches only; default: the whole split")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.processes import distributed

    with distributed.distributed_context():
        return _measure(args) | {"is_worker": not distributed.is_main()}


def _measure(args: argparse.Namespace) -> dict[str, Any]:
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
    mesh = sharding.make_mesh(MeshConfig())  # whatever devices are here, not those of the training
    with jax.set_mesh(mesh):
        state = load_pretrained_state(args.workdir, mesh, args.step)[1]
        rows = sharding.batch_sharding(mesh)
        batches = ordered_batches(dataset, args.split, config.batch_size, rows, args.batches)
        metrics = evaluate.evaluate(state.params, batches, jit_eval_step(config, mesh), config)
    unigram = dataset.manifest.splits[args.split].unigram_cross_entropy
    metrics["unigram_cross_entropy"] = unigram
    for name, value in metrics.items():
        log_main(f"{name:<26} {value:.4f}")
    return {"workdir": args.workdir, "step": int(state.step), "split": args.split} | metrics
