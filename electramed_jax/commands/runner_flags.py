"""The flags of the commands whose work an Apache Beam pipeline can do."""

from __future__ import annotations

import argparse
import shlex

from electramed_jax.common.errors import UserError
from electramed_jax.data.parallel.beam_runner import BeamRunner


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    parser.add_argument(
        "--runner",
        metavar="NAME",
        help="do it as an Apache Beam pipeline instead, with the same result: DirectRunner (here), DataflowRunner "
        "(Google Cloud; see launch/beam_dataflow.sh), or another that Beam knows; needs electramed_jax[beam]",
    )
    parser.add_argument(
        "--beam_options",
        default="",
        metavar="OPTIONS",
        help="for the runner, in one word: '--project=my-project --region=us-west4 --temp_location=gs://my-bucket/tmp'",
    )


def beam(args: argparse.Namespace) -> BeamRunner | None:
    """The runner that is asked for, or None.

    Raises:
      UserError: flags that do not go together.
    """
    if args.runner is None:
        if args.beam_options:
            raise UserError("--beam_options is for a --runner; give one, e.g. --runner=DirectRunner")
        return None
    if args.workers is not None:
        raise UserError("--workers is not for a --runner; say how many in --beam_options, as the runner calls it")
    try:
        return BeamRunner(args.runner, tuple(shlex.split(args.beam_options)))
    except ValueError as error:
        raise UserError(f"--beam_options: {error}; quote as in a shell") from error
