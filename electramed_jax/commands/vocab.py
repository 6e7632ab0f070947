"""`electramed vocab`: trains a WordPiece vocabulary on a documents folder."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.commands import case_flags
from electramed_jax.common import console
from electramed_jax.common.errors import UserError

HELP = """Trains a WordPiece vocabulary on prepared documents.

  electramed vocab --documents documents --output vocab.txt
  electramed vocab --documents documents --extend models/general/vocab.txt --size 33000 --output vocab.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--documents", required=True, metavar="DIR", help="folder that electramed prepare wrote")
    parser.add_argument("--output", required=True, metavar="FILE", help="vocabulary file to write, one token a line")
    parser.add_argument(
        "--size", type=int, default=31_090, metavar="N", help="number of tokens (default 31090, that of SciVocab)"
    )
    parser.add_argument(
        "--extend",
        metavar="FILE",
        help="vocab.txt of a released model: keep its tokens and add new ones up to --size (default: none)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing --output (default: stop before the training)"
    )
    case_flags.add_arguments(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="number of processes (default: one per core)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage import files
    from electramed_jax.data.tokenizer.train_vocab import train_vocab

    case_flags.check(args)
    if files.exists(args.output) and not args.overwrite:
        raise UserError(
            f"{args.output}: exists; datasets packed with it need it unchanged; choose another --output, or replace it "
            "with --overwrite"
        )
    result = train_vocab(
        args.documents,
        args.output,
        size=args.size,
        lower_case=not args.cased,
        keep_accents=args.keep_accents,
        extend=args.extend,
        workers=args.workers,
    )
    fewer = " (the corpus has no further ones)" if result["size"] < args.size else ""
    console.say(f"{args.output}: {result['size']:,} tokens{fewer}")
    console.say(
        f"next: electramed pack --documents {args.documents} --vocab {args.output}{case_flags.command_part(args)} "
        "--max_seq_length 128 --output packed"
    )
    return result
