"""Flags of the commands that need no dataset (bench, compile), and the config that results from them."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING

from electramed_jax.common.console import say

if TYPE_CHECKING:
    from electramed_jax.config.pretrain import Config
    from electramed_jax.config.special_tokens import SpecialIds

SCIVOCAB = 31_090  # tokens of SciVocab, the vocabulary of ELECTRAMed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocab_size",
        type=int,
        default=0,
        metavar="N",
        help=f"number of tokens of the vocabulary (default: the config's or the dataset's, or else {SCIVOCAB})",
    )
    parser.add_argument(
        "--max_seq_length",
        "--row_length",
        dest="max_seq_length",
        type=int,
        default=0,
        metavar="N",
        help="tokens in a row (default: the config's or the dataset's, or else config.model.max_positions)",
    )


def resolve(config: Config, args: argparse.Namespace, special: SpecialIds | None = None) -> Config:
    """Returns the config completed from its dataset, or without a dataset from the flags and defaults.

    Args:
      config: the config of the command line.
      args: parsed flags, those of `add_arguments` among them.
      special: ids of the special tokens if there is no dataset; None: the config's.
    """
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.pretrain import loop

    vocab_size = args.vocab_size or config.model.vocab_size
    max_seq_length = args.max_seq_length or config.data.max_seq_length
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=vocab_size),
        data=dataclasses.replace(config.data, max_seq_length=max_seq_length),
    )
    if config.data.directory:
        return loop.resolve_with_dataset(config)[0]
    vocab_size, max_seq_length = vocab_size or SCIVOCAB, max_seq_length or config.model.max_positions
    say(f"no dataset: using a vocabulary of {vocab_size:,} and rows of {max_seq_length} tokens")
    special = special or config.data.special
    return config_lib.resolve(config, vocab_size=vocab_size, max_seq_length=max_seq_length, special=special)
