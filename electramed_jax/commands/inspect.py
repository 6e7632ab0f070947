"""`electramed inspect`: shows the contents of a folder or file that electramed wrote."""

from __future__ import annotations

import argparse
import itertools
import json
import posixpath
from typing import Any

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

HELP = """Shows the contents of a packed folder, a shard, a documents folder or a workdir.

  electramed inspect packed
  electramed inspect documents --split=validation --rows=10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", help="packed folder, its manifest.json or a shard; documents folder or workdir")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="rows or documents to show (default 3)")
    parser.add_argument("--split", default="train", help="train, validation or test (default: train)")
    parser.add_argument("--verify", action="store_true", help="compare the SHA-256 of every shard with the manifest")


def run(args: argparse.Namespace) -> dict[str, Any]:
    path = args.path.rstrip("/")
    if not files.exists(path):
        raise UserError(f"{path}: no such file or folder; check the path")
    if files.is_dir(path):
        return _inspect_folder(path, args)
    folder, name = posixpath.split(path)
    if name == "manifest.json":
        return _inspect_packed(folder or ".", None, args)
    if ".tfrecord-" in name:
        return _inspect_packed(folder or ".", name, args)
    raise UserError(
        f"{path}: unknown kind of file; wanted a packed folder, its manifest.json, a *.tfrecord-* shard, a documents "
        "folder or a workdir"
    )


def _inspect_folder(path: str, args: argparse.Namespace) -> dict[str, Any]:
    if files.exists(files.join(path, "manifest.json")):
        return _inspect_packed(path, None, args)
    if files.exists(files.join(path, "documents.json")):
        return _inspect_documents(path, args)
    config = files.join(path, "config.json")
    if files.exists(config):
        return _inspect_workdir(path)
    raise UserError(
        f"{path}: contains no manifest.json, documents.json or config.json; wanted a folder that electramed prepare, "
        "pack or pretrain has written"
    )


def _inspect_workdir(path: str) -> dict[str, Any]:
    """Shows a training workdir: the recipe by phases and the starts of pre-training; the settings of fine-tuning."""
    from electramed_jax.config.pretrain import to_dict
    from electramed_jax.finetune.training.workdir import is_finetuned
    from electramed_jax.hf.card import describe_recipe
    from electramed_jax.pretrain import history

    if is_finetuned(path):
        value = files.read_json(files.join(path, "config.json"), dict[str, Any])
        console.say(json.dumps(value, indent=2, ensure_ascii=False))
        return {"kind": "training", "config": value}
    run = history.read_history(path)
    phases = run.phases()
    recipe = {"steps": f"{run.step:,} of {run.config.total_steps:,}"}
    recipe |= history.describe_by_phase(phases, run.config, describe_recipe)
    width = max(map(len, recipe))
    for label, text in recipe.items():
        console.say(f"{label:<{width}}  {text}")
    changed = history.changed_during_run(phases)
    for name, values in changed.items():
        steps = "; ".join(f"{phase}: {value!r}" for phase, value in zip(phases, values, strict=True))
        console.say(f"changed during the run: {name}: {steps}")
    for start in run.starts:
        console.say(
            f"start after step {start['step']:,}, {start['time']}: {start['devices']} × {start['device_kind']}"
            + (f", ended at step {start['last_step']:,}: {start['end']}" if "end" in start else "")
        )
    console.say(f"all settings: {files.join(path, 'config.json')}")
    settings = to_dict(run.config)
    return {"kind": "training", "config": settings, "step": run.step, "recipe": recipe, "starts": list(run.starts)}


def _inspect_packed(folder: str, shard: str | None, args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage.tfrecord import RowFile
    from electramed_jax.data.dataset import manifest, verify
    from electramed_jax.data.dataset.dataset import Dataset
    from electramed_jax.data.tokenizer import vocab
    from electramed_jax.data.tokenizer.tokenizer import Tokenizer

    packed = manifest.read_manifest(folder)
    if args.verify:
        verify.verify_shards(Dataset((folder,), (packed,)))
        console.say("the SHA-256 of every shard equals that of the manifest")
    for name, split in packed.splits.items():
        console.say(
            f"{name}: {len(split.shards)} shards, {split.rows:,} rows of {packed.row_length}, "
            f"{split.tokens:,} tokens, {split.documents:,} documents, "
            f"{split.fill_fraction:.2%} full"
        )
    if shard is None:
        if args.split not in packed.splits:
            known = ", ".join(packed.splits)
            raise UserError(f"split {args.split!r}: not in {folder}; it has {known}")
        shards = packed.splits[args.split].shards
        shard = shards[0].file if shards else None
    shown = []
    if shard is not None:
        rows = RowFile(files.join(folder, shard), packed.row_length, packed.dtype)
        tokenizer = Tokenizer(files.join(folder, vocab.VOCAB_FILE), packed.lower_case)
        for number, row in enumerate(rows[: args.rows]):
            shown.append(tokenizer.decode(row[row != packed.special.pad]))
            console.say(f"{shard} row {number}: {shown[-1]}")
    return {
        "kind": "packed",
        "row_length": packed.row_length,
        "vocab_size": packed.vocab_size,
        "splits": {name: split.rows for name, split in packed.splits.items()},
        "rows": shown,
    }


def _inspect_documents(path: str, args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.data.corpus import corpus_dir

    info = corpus_dir.read_documents_info(path)
    if args.split not in corpus_dir.SPLITS:
        raise UserError(f"split {args.split!r}: wanted one of {', '.join(corpus_dir.SPLITS)}")
    for split, counts in info["splits"].items():
        console.say(f"{split}: {counts['documents']:,} documents, {counts['bytes']:,} bytes")
    for reason, count in (info["dropped"] | info["repaired"]).items():
        console.say(f"{reason}: {count:,}")
    shown: list[dict[str, Any]] = []
    for number in range(len(info["inputs"])):
        part = corpus_dir.read_part(corpus_dir.part_path(path, args.split, number))
        for document in itertools.islice(part, args.rows - len(shown)):
            shown.append({"id": document.id, "text": document.text})
            console.say(f"{document.id}: {document.text[:1000]}")
    return {"kind": "documents", "splits": info["splits"], "rows": shown}
