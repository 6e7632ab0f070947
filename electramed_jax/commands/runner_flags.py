"""Flags of the commands that run in a process pool or as an Apache Beam pipeline: prepare and pack."""

from __future__ import annotations

import argparse
import shlex

from electramed_jax.common.errors import UserError
from electramed_jax.data.parallel.beam_runner import BeamRunner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="run as an Apache Beam pipeline with the same result: DirectRunner (this machine), DataflowRunner "
        "(Google Cloud; see launch/beam_dataflow.sh), DaskRunner (a Dask cluster; needs electramed_jax[dask]) or "
        "another runner of Beam; needs electramed_jax[beam] (default: a process pool)",
    )
    parser.add_argument(
        "--beam_options",
        default="",
        metavar="OPTIONS",
        help="options of the runner, quoted as one word: "
        "'--project=my-project --region=us-west4 --temp_location=gs://my-bucket/tmp'",
    )


def beam(args: argparse.Namespace) -> BeamRunner | None:
    """Returns the Beam runner of the flags, or None for a process pool.

    Raises:
      UserError: flags that exclude each other, or --beam_options with an unclosed quote.
    """
    if args.runner is None:
        if args.beam_options:
            raise UserError("--beam_options needs --runner; add one, e.g. --runner=DirectRunner")
        return None
    if args.workers is not None:
        raise UserError("--workers does not apply to --runner; set the number of workers in --beam_options")
    try:
        return BeamRunner(args.runner, tuple(shlex.split(args.beam_options)))
    except ValueError as error:
        raise UserError(f"--beam_options: {error}; quote as in a shell") from error
