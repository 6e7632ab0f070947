"""`electramed errors`: lists the errors of a fine-tuned model."""

from __future__ import annotations

import argparse
import sys
from typing import Any

HELP = """Lists the errors of a fine-tuned model: counts by kind, then the examples.

  electramed errors --workdir=runs/ncbi
  electramed errors --workdir=runs/chemprot --limit=50 --output=errors.md

Kinds are: missed, spurious, wrong type, wrong border (entities), one label predicted as another (texts), wrong answers.
The split is dev: errors on test would tune a model to it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder that electramed finetune wrote")
    parser.add_argument("--split", default="dev", choices=("dev", "test"), help="split (default: dev)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed (default: the best on dev)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="examples of each kind (default: 20)")
    parser.add_argument("--output", metavar="FILE", help="Markdown file to write (default: standard output)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.common.storage import files
    from electramed_jax.finetune import load_model
    from electramed_jax.finetune.analysis import compare, errors
    from electramed_jax.finetune.task.task import DEV

    if args.json and not args.output:
        raise UserError("--json and the list cannot share standard output; add --output=FILE for the list")
    results = load_model.read_results(args.workdir)
    by_seed = compare.read_records(args.workdir, args.split)
    runs = {one["seed"]: one[DEV][results["primary"]] for one in results["runs"]}
    seed = max(runs, key=lambda number: runs[number]) if args.seed is None else args.seed
    if seed not in by_seed:
        raise UserError(f"{args.workdir}: seed {seed} is not finished; finished are {', '.join(map(str, by_seed))}")
    kind, records = results["task"], by_seed[seed]
    text = errors.to_markdown(kind, records, f"Errors of {args.workdir}, seed {seed}, on {args.split}", args.limit)
    if args.output:
        files.write_text(args.output, text)
        console.say(f"wrote {args.output}")
    else:
        sys.stdout.write(text)
    wrong = {place for _, place, _ in errors.list_errors(kind, records)}
    return {"workdir": args.workdir, "seed": seed, "split": args.split, "examples": len(records), "wrong": len(wrong)}
