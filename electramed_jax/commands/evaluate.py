"""`electramed evaluate`: computes the metrics of a checkpoint on a split."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

HELP = """Computes the metrics of a checkpoint on the validation or test rows of its dataset, with fixed masks.

  electramed evaluate --workdir=runs/small --split=test
  electramed evaluate --workdir=runs/small --step=5000 --data=packed/other --batches=10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder that electramed pretrain wrote")
    parser.add_argument("--step", type=int, metavar="N", help="step of the checkpoint (default: the newest)")
    parser.add_argument("--split", default="validation", help="validation, test or train (default: validation)")
    parser.add_argument(
        "--data", metavar="DIR", help="packed folder, or several separated by commas (default: that of the training)"
    )
    parser.add_argument("--batches", type=int, metavar="N", help="number of batches (default: the whole split)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.processes import distributed

    with distributed.distributed_context():
        return _evaluate(args) | {"is_worker": not distributed.is_main()}


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
    mesh = sharding.make_mesh(MeshConfig())  # the devices of this machine, not those of the training
    with jax.set_mesh(mesh):
        state = load_pretrained_state(args.workdir, mesh, args.step)[1]
        rows = sharding.batch_sharding(mesh)
        batches = ordered_batches(dataset, args.split, config.batch_size, rows, args.batches)
        metrics = evaluate.evaluate(state.params, batches, jit_eval_step(config, mesh), config)
    assert metrics is not None  # None only if a preemption ends the evaluation, which this command does not check for
    metrics["unigram_cross_entropy"] = dataset.manifest.splits[args.split].unigram_cross_entropy
    for name, value in metrics.items():
        log_main(f"{name:<26} {value:.4f}")
    return {"workdir": args.workdir, "step": int(state.step), "split": args.split} | metrics
