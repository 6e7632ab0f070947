"""The files of a pre-training workdir that describe its checkpoints, and the checks before a run is resumed.

workdir/config.json        the resolved config of the newest start that trained at least one step
workdir/vocab.txt          the vocabulary of the model
workdir/dataset.json       the manifest of the training dataset of that start
workdir/history.jsonl      settings, versions, data, hosts and steps of each start (training/starts.py)
"""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import warn_main
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, from_saved, to_dict
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.manifest import Manifest, load_manifest
from electramed_jax.data.tokenizer import vocab as vocabularies
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.training.starts import CHECKPOINTS, HISTORY_FILE, read_starts

CONFIG_FILE, DATASET_FILE = "config.json", "dataset.json"
AUTOMATIC_FILE = "automatic.json"  # written by pretrain/automatic.py

# Settings that decide the shapes and the meaning of a checkpoint. All other settings may change between restarts.
FIXED_SETTINGS = ("model", "objective.kind", "data.max_seq_length", "data.special")
# Settings that decide the rows of each step, in addition to the dataset. A change is allowed and causes a warning.
DATA_ORDER_SETTINGS = ("data.weights", "data.seed", "batch_size")
SPLIT_NAMES = {"train": "training", "validation": "validation"}
# Settings of `model` that do not change the meaning of its parameters: exceptions from FIXED_SETTINGS.
RUNTIME_SETTINGS = (
    "model.remat", "model.scan_layers", "model.kernels", "model.compute_dtype", "model.dropout",
    "model.attention_dropout", "model.attention_dropout_hash",
)  # fmt: skip


def init_workdir(workdir: str, config: Config, dataset: Dataset) -> Config | None:
    """Writes the files of a new workdir, or compares those of an earlier start with this one.

    A start with other settings changes the files only when it has trained a step: see `write_workdir_files`.

    Args:
      workdir: the folder; created if missing.
      config: the resolved config.
      dataset: the packed dataset of `config.data.directory`.

    Returns:
      The config of the newest start that trained at least one step; None if the workdir is new.

    Raises:
      UserError: the folder holds another model, or checkpoints without a config, or is not the same folder in all
        processes. It is raised in every process.
    """
    earlier = None
    warnings: list[str] = []
    if files.exists(files.join(workdir, CONFIG_FILE)):
        earlier = read_config(workdir)
        check_same_model(workdir, earlier, config)
        warnings = _warnings(workdir, earlier, config, dataset.manifest)
        _check_same_vocab(workdir, config, dataset)
    elif files.exists(files.join(workdir, CHECKPOINTS)):
        raise UserError(f"{workdir}: found {CHECKPOINTS}/ but no {CONFIG_FILE}; use a new --workdir")
    distributed.check_shared(workdir)  # also a barrier: no process writes before all have read
    for line in warnings:
        warn_main(line)
    if earlier is None:
        write_workdir_files(workdir, config, dataset)
    return earlier


def write_workdir_files(workdir: str, config: Config, dataset: Dataset) -> None:
    """Writes vocab.txt, dataset.json and config.json in the main process."""
    if distributed.is_main():
        files.write_text(files.join(workdir, VOCAB_FILE), files.read_text(dataset.vocab_path))
        files.write_json(files.join(workdir, DATASET_FILE), dataclasses.asdict(dataset.manifest))
        files.write_json(files.join(workdir, CONFIG_FILE), to_dict(config))


def read_kernel_alerts(workdir: str) -> list[dict[str, Any]]:
    """Returns the alerts about kernels that differed from their plain form, as `Alert.to_json` wrote them."""
    path = files.join(workdir, AUTOMATIC_FILE)
    return files.read_json(path).get("kernel_alerts", []) if files.exists(path) else []


def has_checkpoints(workdir: str) -> bool:
    """Returns whether a run in this workdir resumes from a checkpoint."""
    folder = files.join(workdir, CHECKPOINTS)
    return files.exists(folder) and any(name.isdigit() for name in files.list_dir(folder))


def read_config(workdir: str) -> Config:
    """Reads the resolved config of a pre-training workdir: that of the newest start that trained at least one step.

    The history is authoritative. A config.json that differs from it was edited by hand, which a warning reports.

    Raises:
      UserError: the folder has no config.json.
    """
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path):
        raise UserError(
            f"{workdir}: no {CONFIG_FILE}; not a training workdir, give the --workdir of electramed pretrain"
        )
    starts = read_run_starts(workdir)
    if not starts or not starts[-1].get("settings"):
        return from_saved(files.read_json(path), path)
    config = from_saved(starts[-1]["settings"])
    try:
        written = from_saved(files.read_json(path), path)
    except UserError as error:
        warn_main(f"{error}; {HISTORY_FILE} is used instead")
        return config
    # A process that was killed after its first step may have written history.jsonl but not config.json yet.
    known = [start["settings"] for start in starts if start.get("settings")]
    if not any(from_saved(settings) == written for settings in known[-2:]):
        edited = "; ".join(changed_settings(config, written))
        warn_main(f"{path}: differs from {HISTORY_FILE} ({edited}); the settings of {HISTORY_FILE} are used")
    return config


def read_run_starts(workdir: str) -> list[dict[str, Any]]:
    """Returns the starts of a pre-training run in order; see `training.starts.read_starts`.

    Settings that this version cannot read are removed with a warning: the history informs, and never blocks a run.
    """
    starts = read_starts(workdir)
    for start in starts:
        if start.get("settings"):
            try:
                from_saved(start["settings"])
            except UserError as error:
                place = f"{files.join(workdir, HISTORY_FILE)}, start after step {start['step']:,}"
                warn_main(f"{place}: {error}; its settings are not used")
                start["settings"] = None
    return starts


def read_vocab(workdir: str, config: Config) -> list[str]:
    """Reads the vocabulary of a pre-training workdir, and checks that it is the one that the model was trained with.

    Args:
      workdir: folder of the run.
      config: its resolved config.

    Raises:
      UserError: vocab.txt differs from the record in dataset.json, or from the config in its size or special ids.
    """
    path = files.join(workdir, VOCAB_FILE)
    tokens, recorded = vocabularies.read_vocab(path), read_manifest(workdir)
    if recorded is not None and (got := vocabularies.sha256(path)) != recorded.vocab_sha256:
        raise UserError(
            f"{path}: not the vocabulary that the model was trained with (SHA-256 {got[:16]}…, wanted "
            f"{recorded.vocab_sha256[:16]}… of {DATASET_FILE}); copy vocab.txt of the packed dataset over it"
        )
    special = vocabularies.special_ids(tokens)
    if (len(tokens), special) != (config.model.vocab_size, config.data.special):
        raise UserError(
            f"{path}: {len(tokens):,} tokens with {special}; wanted {config.model.vocab_size:,} with "
            f"{config.data.special}, as the model was trained; copy vocab.txt of the packed dataset over it"
        )
    return tokens


def changed_settings(earlier: Config, current: Config) -> list[str]:
    """Returns a line "name: old -> new" for each setting that differs."""
    changed = config_io.diff_settings(to_dict(earlier), to_dict(current))
    return [f"{name}: {old!r} -> {new!r}" for name, (old, new) in changed.items()]


def check_same_model(workdir: str, earlier: Config, current: Config) -> None:
    """Checks that two configs describe the same model.

    Raises:
      UserError: names the settings that differ.
    """
    changed = changed_settings(earlier, current)
    different = [line for line in changed if line.startswith(FIXED_SETTINGS) and not line.startswith(RUNTIME_SETTINGS)]
    if earlier.objective.has_corrective_head != current.objective.has_corrective_head:
        different += [line for line in changed if line.startswith("objective.corrective_weight")]
    if different:
        raise UserError(
            f"{workdir} holds another model ({'; '.join(different)}); use a new --workdir, or the settings that the "
            "run was started with"
        )


def _check_same_vocab(workdir: str, config: Config, dataset: Dataset) -> None:
    """Raises a UserError unless the vocabulary of the workdir is that of the dataset."""
    path = files.join(workdir, VOCAB_FILE)
    if not files.exists(path) or vocabularies.sha256(path) == dataset.manifest.vocab_sha256:
        return  # a missing file is written again with the first step
    recorded = read_manifest(workdir)
    if recorded is not None and recorded.vocab_sha256 == dataset.manifest.vocab_sha256:
        raise UserError(
            f"{path}: changed since the run was started (SHA-256 {vocabularies.sha256(path)[:16]}…, wanted "
            f"{recorded.vocab_sha256[:16]}… of {DATASET_FILE}); copy vocab.txt of {config.data.directory} over it"
        )
    raise UserError(
        f"{workdir} holds a model with another vocabulary than {config.data.directory}; use the dataset that "
        "the run was started with, or a new --workdir"
    )


def read_manifest(workdir: str) -> Manifest | None:
    """Returns the manifest of the dataset of the newest start that trained; None if an early version wrote none."""
    path = files.join(workdir, DATASET_FILE)
    return load_manifest(path) if files.exists(path) else None


def _warnings(workdir: str, earlier: Config, current: Config, manifest: Manifest) -> list[str]:
    """Returns a line for each setting changed since the last start, and a warning for each split of other rows."""
    changed = changed_settings(earlier, current)
    lines = [f"setting changed since the last start: {line}" for line in changed]
    causes = [line for line in changed if line.startswith(DATA_ORDER_SETTINGS)]
    before = read_manifest(workdir)
    if line := _changed_rows(before, manifest, "train"):
        causes.append(line)
    if causes:
        lines.append(
            "warning: the data order changes at this step. Some rows of this epoch are repeated, others are skipped "
            f"until the next. Cause: {'; '.join(causes)}"
        )
    if line := _changed_rows(before, manifest, "validation"):
        lines.append(
            "warning: the validation split changes at this step: metrics before and after it are of different rows. "
            f"Cause: {line}"
        )
    return lines


def _changed_rows(before: Manifest | None, now: Manifest, split: str) -> str | None:
    """Returns "training rows: 100 -> 200" if the shards of a split differ from those of the last start."""
    shards_before, shards_now = (
        manifest.splits[split].shards if manifest is not None and split in manifest.splits else ()
        for manifest in (before, now)
    )
    if [shard.sha256 for shard in shards_before] == [shard.sha256 for shard in shards_now]:
        return None
    rows_before, rows_now = (sum(shard.rows for shard in shards) for shards in (shards_before, shards_now))
    return f"{SPLIT_NAMES[split]} rows: {rows_before:,} -> {rows_now:,}"
