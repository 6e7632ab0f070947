"""`electramed inspect`: shows the contents of a folder or file that the commands read or write."""

from __future__ import annotations

import argparse
import posixpath
from typing import Any

from electramed_jax.commands import inspect_data, inspect_models
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Shows the contents of a folder or file: packed dataset or shard, documents, downloads, an input of prepare, a
corpus, a vocabulary, a workdir of pre-training or fine-tuning, a checkpoint, a Hugging Face folder.

  electramed inspect packed
  electramed inspect documents --split=validation --rows=10
  electramed inspect runs/small
  electramed inspect models/small/discriminator"""

# A file that a folder has, and the function that shows the folder.
FOLDERS = {
    "manifest.json": inspect_data.show_packed,
    "documents.json": inspect_data.show_documents,
    "download.json": inspect_data.show_download,
    "corpus.json": inspect_data.show_corpus,
    "task.json": inspect_models.show_finetuning,
    "_CHECKPOINT_METADATA": inspect_models.show_checkpoint,
    "config.json": inspect_models.show_workdir_or_model,
    "discriminator/config.json": inspect_models.show_models,
    "generator/config.json": inspect_models.show_models,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="folder or file")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="rows or documents to show (default 3)")
    parser.add_argument("--split", default="train", help="train, validation or test (default: train)")
    parser.add_argument("--verify", action="store_true", help="compare the SHA-256 of every shard with the manifest")


def run(args: argparse.Namespace) -> dict[str, Any]:
    path = args.path.rstrip("/") or "/"
    if not files.exists(path):
        raise UserError(f"{path}: no such file or folder; check the path")
    return _inspect_folder(path, args) if files.is_dir(path) else _inspect_file(path, args)


def _inspect_folder(path: str, args: argparse.Namespace) -> dict[str, Any]:
    for name, show in FOLDERS.items():
        if files.exists(files.join(path, name)):
            return show(path, args)
    if posixpath.basename(path) == "checkpoints":
        return inspect_models.show_checkpoints(path)
    if corpus := inspect_data.show_corpus_files(path):
        return corpus
    if checkpoint := inspect_models.find_tensorflow_checkpoint(path):
        return checkpoint
    raise UserError(
        f"{path}: contains no {', '.join(name for name in FOLDERS if '/' not in name)}; wanted a folder that a command "
        "reads or writes"
    )


def _inspect_file(path: str, args: argparse.Namespace) -> dict[str, Any]:
    folder, name = posixpath.split(path)
    folder = folder or "."
    if name in FOLDERS:
        return FOLDERS[name](folder, args)
    if ".tfrecord" in name:
        packed = ".tfrecord-" in name and files.exists(files.join(folder, "manifest.json"))
        return inspect_data.show_packed(folder, args, name) if packed else inspect_data.show_tfrecord(path)
    if name.endswith(".txt") and inspect_data.is_vocabulary(path):
        return inspect_data.show_vocabulary(path)
    return inspect_data.show_input(path, args)
