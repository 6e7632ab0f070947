"""`electramed pack`: tokenizes prepared documents and packs them into rows of token ids."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from electramed_jax.commands import case_flags, runner_flags, takeover_flag
from electramed_jax.common import console

if TYPE_CHECKING:
    from electramed_jax.data.dataset.manifest import Manifest

HELP = """Tokenizes prepared documents and packs them into rows of equal length, as TFRecord shards.

  electramed pack --documents documents --vocab vocab.txt --output packed --max_seq_length 512
  electramed pack --documents documents --vocab models/general/vocab.txt --output packed --max_seq_length 128 --cased"""

SMALL_TOKENS = 13_000_000  # for the recipe small: the ten million words of configs/README.md


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--documents", required=True, metavar="DIR", help="folder that electramed prepare wrote")
    parser.add_argument("--vocab", required=True, metavar="FILE", help="vocabulary, one token a line")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--max_seq_length",
        "--row_length",
        dest="max_seq_length",
        type=int,
        default=512,
        metavar="N",
        help="tokens in a row (default 512)",
    )
    parser.add_argument(
        "--format",
        default="packed",
        metavar="packed|electra",
        help="packed (default): several documents a row, no token dropped; electra: the examples of "
        "google-research/electra, two segments of one document a row, then padding",
    )
    parser.add_argument(
        "--name", help="name of the dataset, which begins its file names (default: that of the documents)"
    )
    parser.add_argument(
        "--license",
        default="",
        metavar="LICENCE",
        help="licence of the texts without one of their own, for the model card (default: that of the documents)",
    )
    case_flags.add_arguments(parser)
    runner_flags.add_arguments(parser)
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage.folder_lock import lock_folder
    from electramed_jax.data.packing.build import pack

    case_flags.check(args)
    with lock_folder(args.output, takeover=args.takeover):
        packed = pack(
            args.documents,
            args.vocab,
            args.output,
            row_length=args.max_seq_length,
            format=args.format,
            name=args.name,
            license=args.license,
            lower_case=not args.cased,
            keep_accents=args.keep_accents,
            workers=args.workers,
            beam=runner_flags.beam(args),
        )
    splits = {}
    for name, split in packed.splits.items():
        console.say(
            f"{name}: {split.rows:,} rows of {packed.row_length}, {split.tokens:,} tokens, "
            f"{split.documents:,} documents ({split.split_fraction:.1%} over several rows), "
            f"{split.fill_fraction:.2%} full"
        )
        if packed.format == "electra":
            dropped = split.dropped_tokens / max(1, split.dropped_tokens + split.tokens)
            console.say(
                f"{name}: {dropped:.1%} of the tokens dropped, which did not fit their row; "
                f"--format packed drops none and would be {split.packed_fill_fraction:.2%} full"
            )
        splits[name] = {
            "rows": split.rows,
            "tokens": split.tokens,
            "documents": split.documents,
            "split_documents": split.split_documents,
            "split_fraction": split.split_fraction,
            "dropped_tokens": split.dropped_tokens,
            "fill_fraction": split.fill_fraction,
            "packed_fill_fraction": split.packed_fill_fraction,
            "unigram_cross_entropy": split.unigram_cross_entropy,
        }
    console.say(_next_line(args.output, packed))
    return {"packed": args.output, "format": packed.format, "vocab_size": packed.vocab_size, "splits": splits}


def _next_line(folder: str, packed: Manifest) -> str:
    """Returns a command that trains on a packed folder, or what its validation split needs first.

    The recipe is tiny for a small corpus, else small. Its position table has a row for each token of a row.
    """
    from electramed_jax.config.presets import PRESETS

    if "validation" not in packed.splits or not packed.splits["validation"].rows:
        return (
            "no validation rows, which pretrain needs; next: prepare the text again with --validation 0.1, and pack it"
        )
    size = "small" if packed.splits["train"].tokens >= SMALL_TOKENS else "tiny"
    length = packed.row_length
    positions = f" --config.model.max_positions={length}" * (length > PRESETS[size].model.max_positions)
    return (
        f"next: electramed pretrain --config=pretrain_{size}{positions} --config.data.directory={folder} "
        f"--workdir=runs/{size}"
    )
