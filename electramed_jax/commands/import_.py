"""`electramed import`: writes a config file that continues training from a released ELECTRA."""

from __future__ import annotations

import argparse
import json
import os
import posixpath
from typing import Any

from electramed_jax.commands import case_flags
from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Writes a config file that continues training from a Hugging Face ELECTRA folder, or from the parent of
discriminator/ and generator/, with a new optimizer state. The config has the sizes of the folder and the other settings
of the preset with the nearest width.

  electramed import --input=models/electra-small --data=packed --output=from_electra_small.py
  electramed pretrain --config=from_electra_small.py --workdir=runs/continued

The data must be packed with the model's vocab.txt, or with an extension of it by electramed vocab --extend.

A checkpoint of google-research/electra (TensorFlow 1) is first converted to such folders, which finetune also accepts:

  electramed import --input=electra_small --converted=models/electra-small"""

CONFIG_FILE = '''\
"""Continues training from a Hugging Face ELECTRA with a new optimizer state. Written by electramed import.

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
        "--input", required=True, metavar="PATH", help="Hugging Face folder, or a TensorFlow checkpoint or its folder"
    )
    parser.add_argument("--data", metavar="DIR", help="dataset packed with the folder's vocab.txt")
    parser.add_argument("--output", metavar="FILE.py", help="config file to write")
    parser.add_argument("--converted", metavar="DIR", help="TensorFlow: parent of the Hugging Face folders to write")
    parser.add_argument(
        "--vocab", metavar="FILE", help="TensorFlow: vocabulary (default: vocab.txt in the folder of the checkpoint)"
    )
    parser.add_argument(
        "--cased", action="store_true", help="TensorFlow: the model was trained on cased text (default: lower-cased)"
    )
    parser.add_argument(
        "--keep_accents",
        action="store_true",
        help="TensorFlow: the model was trained on lower-cased text with accents (default: without)",
    )
    parser.add_argument(
        "--num_heads", type=int, metavar="N", help="TensorFlow: heads of the discriminator (default: width / 64)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.hf.format import tf_checkpoint

    prefix = tf_checkpoint.find_checkpoint(args.input)
    if bool(args.data) != bool(args.output):
        raise UserError("--data and --output are given together: the dataset to train on, and the config file to write")
    if prefix is None:
        tf_options = [
            name for name in ("converted", "vocab", "cased", "keep_accents", "num_heads") if getattr(args, name)
        ]
        if tf_options:
            raise UserError(
                f"--{tf_options[0]} applies to a TensorFlow checkpoint; {args.input} is none: no .index file"
            )
        if not args.output:
            raise UserError("no config file to write; add --data=DIR (the dataset to train on) and --output=FILE.py")
        return _write_config(args.input, args.data, args.output)
    case_flags.check(args)
    if not args.converted:
        raise UserError(
            f"{args.input}: a TensorFlow checkpoint; add --converted=DIR, the folder to write Hugging Face folders in"
        )
    converted = _convert(args, prefix)
    return converted | (_write_config(args.converted, args.data, args.output) if args.output else {})


def _convert(args: argparse.Namespace, prefix: str) -> dict[str, Any]:
    from electramed_jax.hf import convert_tf

    default_vocab = files.join(
        args.input if files.is_dir(args.input) else posixpath.dirname(prefix) or ".", "vocab.txt"
    )
    result = convert_tf.convert_checkpoint(
        prefix,
        args.converted,
        vocab_path=args.vocab or default_vocab,
        lower_case=not args.cased,
        keep_accents=args.keep_accents,
        num_heads=args.num_heads,
    )
    for folder in result["converted"]:
        say(f"wrote {folder}")
    if result["left_out"]:
        say(f"ignored {len(result['left_out'])} variables of neither network: {', '.join(result['left_out'][:4])}")
    return result


def _write_config(folder: str, data: str, output: str) -> dict[str, Any]:
    from electramed_jax.config.pretrain import HF_FOLDER
    from electramed_jax.data.dataset.dataset import open_dataset
    from electramed_jax.hf import convert, initialize

    imported, dataset = convert.import_folder(folder, allow_headless=True), open_dataset(data)
    imported, new_tokens = initialize.fit_to_dataset(folder, imported, dataset)
    size, model = initialize.select_preset(folder, imported)
    settings = {
        "init": HF_FOLDER + _absolute(folder),
        "data.directory": ",".join(map(_absolute, dataset.folders)),
    }
    settings |= {f"model.{field}": value for field, value in model.items()}
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in settings.items()}
    lines = [f"    config.{name} = {value}" for name, value in values.items()]
    files.write_text(output, CONFIG_FILE.format(size=size, settings="\n".join(lines)))
    networks = " and ".join(imported.networks)
    new = f", {len(new_tokens):,} of them new" if new_tokens else ""
    say(f"{folder}: {networks}, {imported.vocab_size:,} tokens{new}")
    if imported.unused_rows:
        say(f"ignored {imported.unused_rows} rows of the word embeddings that have no token")
    say(f"wrote {output}: electramed pretrain --config={output} --workdir=DIR")
    return {
        "config": output,
        "networks": list(imported.networks),
        "unused_rows": imported.unused_rows,
        "new_tokens": len(new_tokens),
        "settings": settings,
    }


def _absolute(path: str) -> str:
    """Returns a path that is valid in any working directory; a remote path unchanged."""
    local = files.local_path(path)
    return path if local is None else os.path.abspath(local)
