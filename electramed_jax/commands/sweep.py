"""`electramed sweep`: fine-tunes with every combination of a grid of settings and compares them on dev."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import takeover_flag

HELP = """Fine-tunes with every combination of a grid of settings, and compares them on dev in one table.

  electramed sweep --config=finetune_ner --config.init=runs/small --config.task.data=NCBI-disease \\
    --grid optimizer.learning_rate=5e-5,1e-4,3e-4 --workdir=runs/ncbi-rates
  electramed sweep --config=finetune_relations --config.init=runs/small --config.task.data=ChemProt \\
    --grid optimizer.learning_rate=1e-4,3e-4 --grid text.pooling=cls,mentions --config.seeds=3 --workdir=runs/sweep

Other settings are those of electramed finetune. The test split is not scored. The workdir gets sweep.md, sweep.json
and a workdir for each combination. SIGTERM saves and exits with 42: run the same command again to resume."""
TAKES_CONFIG = "finetune"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--grid",
        action="append",
        required=True,
        metavar="NAME=VALUE,VALUE",
        help="a setting and its values; repeat for a grid of several",
    )
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder for the runs and the table")
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import EXIT_DONE, EXIT_PREEMPTED
    from electramed_jax.common.processes import signals

    with signals.block_sigterm():  # until the run has its own handler
        from electramed_jax.common import console
        from electramed_jax.common.processes import distributed
        from electramed_jax.common.processes.folder_owner import own_folder
        from electramed_jax.finetune.analysis import sweep
        from electramed_jax.finetune.corpora import prepare

        grid = sweep.parse_grid(args.grid)
        with distributed.distributed_context(), own_folder(args.workdir, takeover=args.takeover):
            rows = sweep.run_sweep(prepare.add_settings(args.settings), grid, args.workdir)
            is_worker = not distributed.is_main()
    if rows is not None and not is_worker:
        for line in sweep.to_markdown(rows, len(grid)).split("\n"):
            console.say(line)
    code = EXIT_DONE if rows is not None else EXIT_PREEMPTED
    return {"workdir": args.workdir, "rows": rows or [], "exit_code": code, "is_worker": is_worker}
