"""`electramed blurb`: fine-tunes a model on the data sets of BLURB and prints one table."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import takeover_flag

HELP = """Fine-tunes a model on every data set of BLURB that is at hand, each with its recipe, and prints one table.

  electramed blurb --model=runs/small --workdir=runs/blurb
  electramed blurb --model=models/base/discriminator --data=corpora --workdir=runs/blurb --config.seeds=5

--data holds a folder for each data set, named as in electramed corpora and written by electramed corpora prepare. The
table names what is missing; the BLURB score is the mean over six tasks and needs all 13 data sets. The workdir gets
blurb.md, blurb.json and a workdir for each data set. SIGTERM saves and exits with 42: run it again to resume."""
TAKES_CONFIG = "finetune"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="encoder to fine-tune, as config.init")
    parser.add_argument("--data", default="corpora", metavar="DIR", help="parent of the data sets (default: corpora)")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder for the runs and the table")
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.errors import EXIT_DONE, EXIT_PREEMPTED
    from electramed_jax.common.processes import signals

    with signals.block_sigterm():  # until the run has its own handler
        from electramed_jax.common import console
        from electramed_jax.common.processes import distributed
        from electramed_jax.common.processes.folder_owner import own_folder
        from electramed_jax.finetune.analysis import blurb

        with distributed.distributed_context(), own_folder(args.workdir, takeover=args.takeover):
            table = blurb.run_blurb(args.model, args.data, args.settings, args.workdir)
            is_worker = not distributed.is_main()
    if table is None:
        return {"workdir": args.workdir, "exit_code": EXIT_PREEMPTED, "is_worker": is_worker}
    if not is_worker:
        for line in blurb.to_markdown(table).split("\n"):
            console.say(line)
    return table | {"workdir": args.workdir, "exit_code": EXIT_DONE, "is_worker": is_worker}
