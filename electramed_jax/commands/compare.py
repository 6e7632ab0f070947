"""`electramed compare`: tests whether one fine-tuning run is better than another."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

HELP = """Compares two fine-tuning runs on the same file: difference of a score, 95 % interval and p-value.

  electramed compare runs/ncbi-small runs/ncbi-base
  electramed compare runs/a runs/b --split=dev --score=recall

The interval is from a paired bootstrap of the examples, the p-value (two-sided) from approximate randomization. Both
are about these trained models; the spread over seeds is in results.md. Examples of one document are not independent, so
that a true interval may be wider. Look at dev while you choose, at test once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="WORKDIR", help="workdir of electramed finetune")
    parser.add_argument("second", metavar="WORKDIR", help="another one, scored on the same file")
    parser.add_argument("--split", default="test", choices=("dev", "test"), help="split to compare on (default: test)")
    parser.add_argument(
        "--score", default="", metavar="NAME", help="score (default: the one that chose the checkpoint)"
    )
    parser.add_argument("--resamples", type=int, default=10_000, metavar="N", help="resamples (default: 10000)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.finetune.analysis import compare

    if args.resamples < 100:
        raise UserError(f"--resamples={args.resamples}: wanted 100 or more")
    score, found = compare.compare_runs(args.first, args.second, args.split, args.score, args.resamples)
    seeds = f", mean of {found.seeds} seeds" if found.seeds > 1 else ""
    console.say(f"{args.split} {score}, {found.examples:,} examples{seeds}")
    console.say(f"{args.first}: {found.first:.2f}")
    console.say(f"{args.second}: {found.second:.2f}")
    interval = f"95 % interval {found.low:+.2f} to {found.high:+.2f}"
    console.say(f"difference {found.difference:+.2f}, {interval}, p = {found.p_value:.4f}")
    return {"split": args.split, "score": score} | dataclasses.asdict(found)
