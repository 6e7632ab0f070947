"""`electramed import`: a released ELECTRA as the start of a run."""

from __future__ import annotations

import argparse
import json
import os
import posixpath
from typing import Any

from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Checks a Hugging Face ELECTRA folder, or the parent of discriminator/ and generator/, and
writes a config file that trains on from it with a fresh optimiser: its sizes, and the settings of
the preset nearest in width.

  electramed import --input=models/electra-small --data=packed --output=from_electra_small.py
  electramed pretrain --config=from_electra_small.py --workdir=runs/continued

The data is packed with the model's vocab.txt, or with one that electramed vocab --extend made of it.

A checkpoint of google-research/electra (TensorFlow) is first turned into such folders, which fine-tuning takes as well:

  electramed import --input=electra_small --converted=models/electra-small"""

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
    parser.add_argument(
        "--input", required=True, help="Hugging Face folder, or a checkpoint of TensorFlow or its folder"
    )
    parser.add_argument("--data", help="dataset packed with the folder's vocab.txt")
    parser.add_argument("--output", help="config file to write, a .py")
    parser.add_argument("--converted", metavar="DIR", help="of TensorFlow's: where to write Hugging Face folders")
    parser.add_argument(
        "--vocab", metavar="FILE", help="of TensorFlow's: its vocabulary (default: vocab.txt beside it)"
    )
    parser.add_argument("--cased", action="store_true", help="of TensorFlow's: it was trained on cased text")
    parser.add_argument("--num_heads", type=int, help="of TensorFlow's discriminator (default: width / 64)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.hf.format import tf_checkpoint

    prefix = tf_checkpoint.find_checkpoint(args.input)
    if bool(args.data) != bool(args.output):
        raise UserError("--data and --output go together: the dataset to train on, and the config file to write")
    if prefix is None:
        wrong = [name for name in ("converted", "vocab", "cased", "num_heads") if getattr(args, name)]
        if wrong:
            raise UserError(f"--{wrong[0]} is for a checkpoint of TensorFlow; {args.input} has none (no .index file)")
        if not args.output:
            raise UserError("--data=DIR and --output=FILE.py are wanted: a dataset, and the config file to write")
        return _write_config(args.input, args.data, args.output)
    if not args.converted:
        raise UserError(f"{args.input}: a checkpoint of TensorFlow; say where Hugging Face folders go: --converted=DIR")
    converted = _convert(args, prefix)
    return converted | (_write_config(args.converted, args.data, args.output) if args.output else {})


def _convert(args: argparse.Namespace, prefix: str) -> dict[str, Any]:
    from electramed_jax.hf import convert_tf

    beside = files.join(args.input if files.is_dir(args.input) else posixpath.dirname(prefix) or ".", "vocab.txt")
    found = convert_tf.convert_checkpoint(
        prefix, args.converted, vocab_path=args.vocab or beside, lower_case=not args.cased, num_heads=args.num_heads
    )
    for folder in found["converted"]:
        say(f"wrote {folder}")
    if found["left_out"]:
        say(f"left out {len(found['left_out'])} variables of no network: {', '.join(found['left_out'][:4])}")
    return found


def _write_config(folder: str, data: str, output: str) -> dict[str, Any]:
    from electramed_jax.config.pretrain import HF_FOLDER
    from electramed_jax.data.dataset import dataset
    from electramed_jax.hf import convert, initialize

    imported, new_tokens = initialize.fit_to_dataset(folder, convert.import_folder(folder, allow_headless=True), data)
    size, model = initialize.select_preset(folder, imported)
    settings = {
        "init": HF_FOLDER + _absolute(folder),
        "data.directory": ",".join(map(_absolute, dataset.parse_folders(data))),
    }
    settings |= {f"model.{field}": value for field, value in model.items()}
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in settings.items()}
    lines = [f"    config.{name} = {value}" for name, value in values.items()]
    files.write_text(output, CONFIG_FILE.format(size=size, settings="\n".join(lines)))
    held = " and ".join(imported.networks)
    new = f", {len(new_tokens):,} of them new" if new_tokens else ""
    say(f"{folder}: {held}, {imported.vocab_size:,} tokens{new}")
    if imported.unused_rows:
        say(f"left out {imported.unused_rows} rows of the word table that no token stands for")
    say(f"wrote {output}: electramed pretrain --config={output} --workdir=DIR")
    return {
        "config": output,
        "networks": list(imported.networks),
        "unused_rows": imported.unused_rows,
        "new_tokens": len(new_tokens),
        "settings": settings,
    }


def _absolute(path: str) -> str:
    """A name that holds wherever the config file is used."""
    local = files.local_path(path)
    return path if local is None else os.path.abspath(local)
