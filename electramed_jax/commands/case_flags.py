"""Flags of the normalization of text: vocab, pack and import."""

from __future__ import annotations

import argparse

from electramed_jax.common.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cased", action="store_true", help="keep capitals and accents (default: lower-case the text)")
    parser.add_argument(
        "--keep_accents",
        action="store_true",
        help="keep the accents of lower-cased text, BERT's strip_accents=false (default: remove them)",
    )


def check(args: argparse.Namespace) -> None:
    """Checks the flags.

    Raises:
      UserError: both are given.
    """
    if args.cased and args.keep_accents:
        raise UserError("--cased keeps accents too; leave out --keep_accents")


def command_part(args: argparse.Namespace) -> str:
    """Returns the flags as a part of a command, with a space before each."""
    return " --cased" * args.cased + " --keep_accents" * args.keep_accents
