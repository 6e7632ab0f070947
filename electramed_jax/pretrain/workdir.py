"""What a training folder holds beside its checkpoints, and whose it is.

workdir/config.json        the resolved config
workdir/vocab.txt          the vocabulary the model speaks
workdir/dataset.json       the manifest of the dataset it is trained on
workdir/starts.json        when it was started or went on, from which step, on which devices
"""

from __future__ import annotations

import dataclasses

from electramed_jax.common import config_io
from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, from_saved, to_dict
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.training.starts import CHECKPOINTS

CONFIG_FILE, DATASET_FILE = "config.json", "dataset.json"

# What decides the shapes and the meaning of a checkpoint; the rest of the config may change between restarts.
FIXED_SETTINGS = ("model", "objective.kind", "data.max_seq_length", "data.special")
# What decides, beside the rows themselves, which of them a step sees: free to change, but not without a word.
DATA_ORDER_SETTINGS = ("data.weights", "data.seed", "batch_size")
# Settings of how a model is run, not of what it is.
RUNTIME_SETTINGS = (
    "model.remat", "model.scan_layers", "model.kernels", "model.compute_dtype", "model.dropout",
    "model.attention_dropout",
)  # fmt: skip


def init_workdir(workdir: str, config: Config, dataset: Dataset) -> None:
    """Writes the files that explain the checkpoints, or compares them with those of an earlier start.

    Args:
      dataset: the packed folders of `config.data.directory`.

    Raises:
      UserError, in every process: the folder holds another model, or checkpoints without a config, or is not the
        same folder for all processes.
    """
    config_path, vocab_path = files.join(workdir, CONFIG_FILE), files.join(workdir, VOCAB_FILE)
    vocab, changes = files.read_bytes(dataset.vocab_path), []
    if files.exists(config_path):
        earlier = read_config(workdir)
        check_same_model(workdir, earlier, config)
        changes = _changes(workdir, earlier, config, dataset.manifest)
        if files.read_bytes(vocab_path) != vocab:
            raise UserError(
                f"{workdir} holds a model of another vocabulary than that of {config.data.directory}; use the "
                "dataset it was started with, or a new --workdir"
            )
    elif files.exists(files.join(workdir, CHECKPOINTS)):
        raise UserError(f"{workdir}: has {CHECKPOINTS}/ but no {CONFIG_FILE}; use a new --workdir")
    distributed.check_shared(workdir)  # nobody writes before all have looked
    if distributed.is_main():
        for line in changes:
            warn(line)
        files.write_text(vocab_path, vocab.decode())
        files.write_json(files.join(workdir, DATASET_FILE), dataclasses.asdict(dataset.manifest))
        files.write_json(config_path, to_dict(config))


def has_checkpoints(workdir: str) -> bool:
    """Whether a run in there would go on rather than start."""
    folder = files.join(workdir, CHECKPOINTS)
    return files.exists(folder) and any(name.isdigit() for name in files.list_dir(folder))


def read_config(workdir: str) -> Config:
    """The resolved config of a training workdir; UserError where there is none."""
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path):
        raise UserError(
            f"{workdir}: no {CONFIG_FILE}; not a training workdir, give the --workdir of electramed pretrain"
        )
    return from_saved(files.read_json(path))


def _changes(workdir: str, earlier: Config, now: Config, manifest: manifests.Manifest) -> list[str]:
    """What a person should know of a restart: settings that differ from the earlier start's, and another row order."""
    changed = changed_settings(earlier, now)
    lines = [f"changed since this run was last started: {line}" for line in changed]
    path = files.join(workdir, DATASET_FILE)
    before = manifests.load_manifest(path).splits["train"].shards if files.exists(path) else ()
    shards = manifest.splits["train"].shards
    if [shard.sha256 for shard in before] != [shard.sha256 for shard in shards]:
        rows = [sum(shard.rows for shard in each) for each in (before, shards)]
        lines.append(f"changed since this run was last started: the training rows ({rows[0]:,} -> {rows[1]:,})")
    elif not any(line.startswith(DATA_ORDER_SETTINGS) for line in changed):
        return lines
    return [*lines, "rows come in another order from here on: some of this epoch's again, others not before the next"]


def changed_settings(earlier: Config, now: Config) -> list[str]:
    """Lines "name: old -> new" for every setting that differs."""
    changed = config_io.diff_settings(to_dict(earlier), to_dict(now))
    return [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items()]


def check_same_model(workdir: str, earlier: Config, now: Config) -> None:
    """Raises UserError, naming the settings, where the two configs are of different models."""
    different = [
        line
        for line in changed_settings(earlier, now)
        if line.startswith(FIXED_SETTINGS) and not line.startswith(RUNTIME_SETTINGS)
    ]
    if different:
        raise UserError(
            f"{workdir} holds another model ({'; '.join(different)}); use a new --workdir, or the settings it "
            "was started with"
        )
