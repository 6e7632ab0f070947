"""`electramed report`: writes an HTML page about training runs."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.common.console import say
from electramed_jax.common.storage import files

HELP = """Writes a self-contained HTML page about training runs, finished or running. It shows curves with the range of
healthy runs, alerts, speed and restarts, the data, and sample predictions of the newest checkpoint. Values are shown
under the pointer; axes, smoothing and runs are chosen above the curves; each figure can be saved as PNG or SVG. Needs
pip install 'electramed_jax[report]'.

  electramed report runs/small
  electramed report runs/small runs/wider --output=compared
  electramed report runs/small runs/ncbi runs/chemprot           # with the scores of fine-tuned models
  electramed report runs/ncbi                                    # fine-tuning alone: dev curves, classes, scores

The output of `electramed compile ... --json > runs/small/compile.json` is shown too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "workdirs", nargs="+", metavar="WORKDIR", help="folders that electramed pretrain or finetune wrote"
    )
    parser.add_argument("--output", metavar="DIR", help="folder to write (default: report/ in the first workdir)")
    parser.add_argument("--data", metavar="DIR", help="packed folder of the samples (default: that of the training)")
    parser.add_argument(
        "--rows",
        type=int,
        default=4,
        metavar="N",
        help="validation rows of the samples (default 4; 0: no samples, no checkpoint is read)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.report import write

    output = args.output or files.join(args.workdirs[0], "report")
    result = write.write_report(args.workdirs, output, rows=max(0, args.rows), data=args.data)
    say(f"wrote {result['report']}")
    return result
