"""`electramed pretrain`: trains a generator and a discriminator on packed shards."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import next_step, takeover_flag
from electramed_jax.common.errors import EXIT_DONE, EXIT_PREEMPTED
from electramed_jax.common.processes import signals
from electramed_jax.common.run_clock import RunClock

HELP = """Trains a generator and a discriminator on packed shards; resumes from the newest checkpoint of the workdir.

  electramed pretrain --config=pretrain_small --config.data.directory=packed --workdir=runs/small
  electramed pretrain --config=electramed_base --config.data.directory=gs://bucket/packed --workdir=gs://bucket/runs/base

electramed recipes lists the names for --config. Every setting can be changed: --config.optimizer.learning_rate=3e-4.
SIGTERM saves and exits with 42: run the same command again to resume, also with other numbers of devices.

--config.init=hf:DIR starts from the parameters of a released model, with a new optimizer state and warm-up; electramed
import writes a config file for it. The arrays that were loaded, missing and ignored are printed, and listed in
WORKDIR/init.json.

On several hosts start the same command on each, with one --workdir for all (gs:// or a shared file system).
Cloud TPU VMs, GKE and SLURM are detected; elsewhere set JAX_COORDINATOR_ADDRESS=host:port, JAX_NUM_PROCESSES
and JAX_PROCESS_ID. All processes must have the same settings, versions, data and devices, and clocks that agree to 60
seconds. If one dies or hangs, the others name it and exit with 42 within a minute: start all again."""
TAKES_CONFIG = "pretrain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder for checkpoints and metrics; an existing run is resumed"
    )
    parser.add_argument(
        "--stop_after",
        type=int,
        metavar="N",
        help="save and stop after step N; the schedule still ends at config.total_steps (default: train to the end)",
    )
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    clock = RunClock()
    with signals.block_sigterm():  # also while jax is imported
        from electramed_jax.api.pretraining import pretrain
        from electramed_jax.common.processes import distributed
        from electramed_jax.config import pretrain as config_lib

        config = config_lib.from_flags(args.settings)
        outcome = pretrain(
            config, workdir=args.workdir, stop_after=args.stop_after, takeover=args.takeover, clock=clock
        )
    if distributed.is_main() and not outcome.preempted:
        next_step.print_after_pretraining(args.workdir, finished=outcome.step == config.total_steps)
    return {
        "workdir": args.workdir,
        "step": outcome.step,
        "alerts": [alert.to_json() for alert in outcome.alerts],
        "wall_time": outcome.wall_time,
        **({} if outcome.verdict is None else {"verdict": outcome.verdict.to_json()}),
        "exit_code": EXIT_PREEMPTED if outcome.preempted else EXIT_DONE,
        "is_worker": not distributed.is_main(),
    } | outcome.metrics
