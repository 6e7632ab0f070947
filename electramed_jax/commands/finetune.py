"""`electramed finetune`: fine-tunes an encoder on a corpus and scores it."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import next_step, takeover_flag
from electramed_jax.common.errors import EXIT_DONE, EXIT_PREEMPTED
from electramed_jax.common.processes import signals

HELP = """Fine-tunes an encoder on a corpus, selects the best checkpoint on dev, and scores it on test.

  electramed finetune --config=finetune_ner --config.init=runs/small \\
    --config.task.data=NCBI-disease --config.seeds=5 --workdir=runs/ncbi
  electramed finetune --config=finetune_relations --config.init=models/small/discriminator \\
    --config.task.data=ChemProt --workdir=runs/chemprot

config.init is a workdir of electramed pretrain or finetune, a Hugging Face ELECTRA folder, or `scratch` (random
parameters; --config.init_size_from=DIR then names a model of the same size). The workdir gets results.json and
results.md (mean and standard deviation over the seeds), and the best parameters and predictions of each seed.
SIGTERM saves and exits with 42: run the same command again to resume."""
TAKES_CONFIG = "finetune"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workdir", required=True, metavar="DIR", help="folder for checkpoints and scores; an existing run is resumed"
    )
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    with signals.block_sigterm():  # also while jax is imported
        from electramed_jax.api import finetuning
        from electramed_jax.common.processes import distributed
        from electramed_jax.finetune.training import workdir

        config = finetuning.read_config(args.settings)
        outcome = finetuning.finetune(config, workdir=args.workdir, takeover=args.takeover)
    if distributed.is_main() and not outcome.preempted:
        next_step.print_after_finetuning(args.workdir, workdir.read_model_spec(args.workdir).head.kind)
    return {
        "workdir": args.workdir,
        "exit_code": EXIT_PREEMPTED if outcome.preempted else EXIT_DONE,
        "is_worker": not distributed.is_main(),
        "seeds": outcome.results.get("seeds", []),
        "scores": outcome.results.get("scores", {}),
        "warnings": outcome.results.get("warnings", []),
    }
