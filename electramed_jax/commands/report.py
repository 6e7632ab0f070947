"""`electramed report`: one page about a training run, or about several side by side."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.common.console import say
from electramed_jax.common.storage import files

HELP = """Writes a self-contained HTML page about training runs, finished or going on: curves over bands of healthy
runs, what the sanity watch found, speed and restarts, the data, and sentences with what the newest checkpoint makes of
them. Beside it a PNG of each figure. Needs pip install 'electramed_jax[report]'.

  electramed report runs/small
  electramed report runs/small runs/wider --output=compared
  electramed report runs/small runs/ncbi runs/chemprot           # with the scores of what was fine-tuned from it

What `electramed compile ... --json > runs/small/compile.json` said is shown too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdirs", nargs="+", metavar="WORKDIR", help="what electramed pretrain wrote, and finetune")
    parser.add_argument("--output", help="folder to write; default: report/ in the (first) workdir")
    parser.add_argument("--data", help="packed folder to take sentences from; default: what a run was trained on")
    parser.add_argument(
        "--rows",
        type=int,
        default=4,
        help="validation rows to try each checkpoint on (default 4; 0: open no checkpoint)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.report import write

    output = args.output or files.join(args.workdirs[0], "report")
    result = write.write_report(args.workdirs, output, rows=max(0, args.rows), data=args.data)
    say(f"wrote {result['report']} and {len(result['figures'])} figures beside it")
    return result
