"""The files of a pre-training workdir that describe its checkpoints, and the checks before a run is resumed.

workdir/config.json        the resolved config
workdir/vocab.txt          the vocabulary of the model
workdir/dataset.json       the manifest of the training dataset
workdir/starts.json        time, step and devices of each start and restart (training/starts.py)
"""

from __future__ import annotations

import dataclasses

from electramed_jax.common import config_io
from electramed_jax.common.console import warn
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, from_saved, to_dict
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.manifest import Manifest, load_manifest
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.training.starts import CHECKPOINTS

CONFIG_FILE, DATASET_FILE = "config.json", "dataset.json"

# Settings that decide the shapes and the meaning of a checkpoint. All other settings may change between restarts.
FIXED_SETTINGS = ("model", "objective.kind", "data.max_seq_length", "data.special")
# Settings that decide the rows of each step, in addition to the dataset. A change is allowed and causes a warning.
DATA_ORDER_SETTINGS = ("data.weights", "data.seed", "batch_size")
# Settings of `model` that do not change the meaning of its parameters: exceptions from FIXED_SETTINGS.
RUNTIME_SETTINGS = (
    "model.remat", "model.scan_layers", "model.kernels", "model.compute_dtype", "model.dropout",
    "model.attention_dropout",
)  # fmt: skip


def init_workdir(workdir: str, config: Config, dataset: Dataset) -> None:
    """Writes the files that describe the checkpoints, or compares them with those of an earlier start.

    Args:
      workdir: the folder; created if missing.
      config: the resolved config.
      dataset: the packed dataset of `config.data.directory`.

    Raises:
      UserError: the folder holds another model, or checkpoints without a config, or is not the same folder in all
        processes. It is raised in every process.
    """
    config_path, vocab_path = files.join(workdir, CONFIG_FILE), files.join(workdir, VOCAB_FILE)
    vocab = files.read_bytes(dataset.vocab_path)
    warnings: list[str] = []
    if files.exists(config_path):
        earlier = read_config(workdir)
        check_same_model(workdir, earlier, config)
        warnings = _warnings(workdir, earlier, config, dataset.manifest)
        if files.read_bytes(vocab_path) != vocab:
            raise UserError(
                f"{workdir} holds a model with another vocabulary than {config.data.directory}; use the dataset that "
                "the run was started with, or a new --workdir"
            )
    elif files.exists(files.join(workdir, CHECKPOINTS)):
        raise UserError(f"{workdir}: found {CHECKPOINTS}/ but no {CONFIG_FILE}; use a new --workdir")
    distributed.check_shared(workdir)  # also a barrier: no process writes before all have read
    if distributed.is_main():
        for line in warnings:
            warn(line)
        files.write_text(vocab_path, vocab.decode())
        files.write_json(files.join(workdir, DATASET_FILE), dataclasses.asdict(dataset.manifest))
        files.write_json(config_path, to_dict(config))


def has_checkpoints(workdir: str) -> bool:
    """Returns whether a run in this workdir resumes from a checkpoint."""
    folder = files.join(workdir, CHECKPOINTS)
    return files.exists(folder) and any(name.isdigit() for name in files.list_dir(folder))


def read_config(workdir: str) -> Config:
    """Reads the resolved config of a pre-training workdir.

    Raises:
      UserError: the folder has no config.json.
    """
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path):
        raise UserError(
            f"{workdir}: no {CONFIG_FILE}; not a training workdir, give the --workdir of electramed pretrain"
        )
    return from_saved(files.read_json(path))


def changed_settings(earlier: Config, current: Config) -> list[str]:
    """Returns a line "name: old -> new" for each setting that differs."""
    changed = config_io.diff_settings(to_dict(earlier), to_dict(current))
    return [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items()]


def check_same_model(workdir: str, earlier: Config, current: Config) -> None:
    """Checks that two configs describe the same model.

    Raises:
      UserError: names the settings that differ.
    """
    different = [
        line
        for line in changed_settings(earlier, current)
        if line.startswith(FIXED_SETTINGS) and not line.startswith(RUNTIME_SETTINGS)
    ]
    if different:
        raise UserError(
            f"{workdir} holds another model ({'; '.join(different)}); use a new --workdir, or the settings that the "
            "run was started with"
        )


def _warnings(workdir: str, earlier: Config, current: Config, manifest: Manifest) -> list[str]:
    """Returns a line for each setting changed since the last start, and a warning if the data order changes."""
    changed = changed_settings(earlier, current)
    lines = [f"setting changed since the last start: {line}" for line in changed]
    causes = [line for line in changed if line.startswith(DATA_ORDER_SETTINGS)]
    path = files.join(workdir, DATASET_FILE)
    before = load_manifest(path).splits["train"].shards if files.exists(path) else ()
    now = manifest.splits["train"].shards
    if [shard.sha256 for shard in before] != [shard.sha256 for shard in now]:
        rows_before, rows_now = (sum(shard.rows for shard in shards) for shards in (before, now))
        causes.append(f"training rows: {rows_before:,} -> {rows_now:,}")
    if causes:
        lines.append(
            "warning: the data order changes at this step. Some rows of this epoch are repeated, others are skipped "
            f"until the next. Cause: {'; '.join(causes)}"
        )
    return lines
