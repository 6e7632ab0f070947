"""`electramed import`: a Hugging Face ELECTRA as the start of a run."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from electramed_jax.common import files
from electramed_jax.common.console import say

HELP = """Checks a Hugging Face ELECTRA folder, or the parent of discriminator/ and generator/, and
writes a config file that trains on from it with a fresh optimiser: its sizes, and the settings of
the preset nearest in width.

  electramed import --input=models/electra-small --data=packed --output=from_electra_small.py
  electramed pretrain --config=from_electra_small.py --workdir=runs/continued"""

CONFIG_FILE = '''\
"""Trains on from a Hugging Face ELECTRA with a fresh optimiser. Written by electramed import.

    electramed pretrain --config=THIS_FILE --workdir=DIR
"""

from electramed_jax.config import preset


def get_config():
    config = preset("{size}")
{settings}
    return config
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", required=True, help="Hugging Face folder, safetensors weights")
    parser.add_argument("--data", required=True, help="dataset packed with the folder's vocab.txt")
    parser.add_argument("--output", required=True, help="config file to write, a .py")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data import dataset as datasets
    from electramed_jax.hf import convert, start

    imported = convert.import_folder(args.input)
    start.check_vocabulary(args.input, imported, args.data)
    size, model = start.model_settings(args.input, imported)
    settings = {"init": _absolute(args.input), "data.directory": ",".join(map(_absolute, datasets.folders(args.data)))}
    settings |= {f"model.{field}": value for field, value in model.items()}
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in settings.items()}
    lines = [f"    config.{name} = {value}" for name, value in values.items()]
    files.write_text(args.output, CONFIG_FILE.format(size=size, settings="\n".join(lines)))
    held = " and ".join(imported.networks)
    say(f"{args.input}: {held}, {imported.dimensions['vocab_size']:,} tokens")
    if imported.unused_rows:
        say(f"left out {imported.unused_rows} rows of the word table that no token stands for")
    say(f"wrote {args.output}: electramed pretrain --config={args.output} --workdir=DIR")
    return {
        "config": args.output,
        "networks": list(imported.networks),
        "unused_rows": imported.unused_rows,
        "settings": settings,
    }


def _absolute(path: str) -> str:
    """A name that holds wherever the config file is used."""
    local = files.local_path(path)
    return path if local is None else os.path.abspath(local)
