"""Checkpoints: the train state and the clock in one orbax save, explained by the files beside them.

    workdir/config.json        the resolved config
    workdir/vocab.txt          the vocabulary the model speaks
    workdir/dataset.json       the manifest of the dataset it is trained on
    workdir/checkpoints/<step>/{state,clock}

orbax writes asynchronously and makes a step visible only when it is whole; the newest whole one wins.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh

from electramed_jax.common import distributed, files, trees
from electramed_jax.common.console import say
from electramed_jax.common.errors import UserError
from electramed_jax.config import Config, from_dict, to_dict
from electramed_jax.data import dataset as datasets
from electramed_jax.data import manifest as manifests
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import TrainState

CONFIG_FILE, VOCAB_FILE, DATASET_FILE = "config.json", "vocab.txt", "dataset.json"
FOLDER = "checkpoints"

# What decides the shapes and the meaning of a checkpoint; the rest of the config may change between restarts.
IDENTITY = ("model", "objective.kind", "data.row_length", "data.special")
# What decides, beside the rows themselves, which of them a step sees: free to change, but not without a word.
ORDER = ("data.weights", "data.seed", "batch_size")
# Settings of how a model is run, not of what it is.
FREE = ("model.remat", "model.compute_dtype", "model.dropout", "model.attention_dropout")


class Checkpoints:
    """The checkpoints of one workdir, open for writing. A context manager: leaving it waits for the last save."""

    def __init__(self, workdir: str, config: Config):
        """Claims the workdir for this run on `config.data.directory`, or finds that it is already this run's.

        Raises:
          UserError: the workdir holds another model, or checkpoints without a config.
        """
        _quiet()
        self._config, self._workdir = config, workdir
        _claim(workdir, config)
        self._manager = _manager(workdir, keep=config.keep_checkpoints)

    def latest_step(self) -> int | None:
        """Steps done at the newest whole checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, mesh: Mesh) -> tuple[TrainState, dict[str, float]]:
        """The newest state, placed on this mesh whatever mesh wrote it, and the clock saved with it."""
        return _restore(self._manager, self._config, mesh, self._workdir)

    def save(self, step: int, state: TrainState, clock: dict[str, float]) -> None:
        """Starts saving; a failing disk shows as a UserError here or at `wait`. A step saved already stays as it is."""
        with _storage_errors(self._workdir):
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), clock=ocp.args.JsonSave(clock)),
            )

    def wait(self) -> None:
        """Returns once everything started is on disk."""
        with _storage_errors(self._workdir):
            self._manager.wait_until_finished()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        with _storage_errors(self._workdir):
            self._manager.close()


def read_config(workdir: str) -> Config:
    """The resolved config of a training workdir; UserError where there is none."""
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path):
        raise UserError(
            f"{workdir}: no {CONFIG_FILE}; not a training workdir, give the --workdir of electramed pretrain"
        )
    return from_dict(files.read_json(path))


def load(workdir: str, mesh: Mesh, step: int | None = None) -> tuple[Config, TrainState]:
    """A finished or running workdir's config and state at `step` (None: the newest), for evaluation and export.

    Raises:
      UserError: no checkpoint, or none of that step (the message lists those there are).
    """
    config = read_config(workdir)
    with _manager(workdir, keep=None) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise UserError(f"{workdir}: no complete checkpoint yet; wait for the first save of electramed pretrain")
        if step is not None and step not in steps:
            raise UserError(f"{workdir}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
        return config, _restore(manager, config, mesh, workdir, step)[0]


def _manager(workdir: str, keep: int | None) -> ocp.CheckpointManager:
    """keep=None opens for reading: nothing is created or removed."""
    path = files.join(workdir, FOLDER)
    path = path if "://" in path else os.path.abspath(path)
    options = ocp.CheckpointManagerOptions(
        create=keep is not None,
        cleanup_tmp_directories=keep is not None,
        preservation_policy=ocp.checkpoint_managers.LatestN(keep) if keep else None,
    )
    return ocp.CheckpointManager(path, options=options, item_names=("state", "clock"))


def _restore(
    manager: ocp.CheckpointManager,
    config: Config,
    mesh: Mesh,
    workdir: str,
    step: int | None = None,
) -> tuple[TrainState, dict[str, float]]:
    step = manager.latest_step() if step is None else step
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(state_lib.abstract_state(config, mesh)),
        clock=ocp.args.JsonRestore(),
    )
    try:
        restored = manager.restore(step, args=args)
    except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{files.join(workdir, FOLDER, str(step))}: cannot be read ({_first_line(error)}); "
            "move this folder away to go on from the checkpoint before it"
        ) from error
    return restored["state"], restored["clock"]


def _claim(workdir: str, config: Config) -> None:
    """Writes the files that explain the checkpoints, or checks those of an earlier start."""
    config_path, vocab_path = files.join(workdir, CONFIG_FILE), files.join(workdir, VOCAB_FILE)
    dataset = datasets.read(config.data.directory)
    vocab, changes = files.read_bytes(dataset.vocab_path), []
    if files.exists(config_path):
        earlier = read_config(workdir)
        _check_same_model(workdir, earlier, config)
        changes = _changes(workdir, earlier, config, dataset.manifest)
        if files.read_bytes(vocab_path) != vocab:
            raise UserError(
                f"{workdir} holds a model of another vocabulary than that of {config.data.directory}; use the "
                "dataset it was started with, or a new --workdir"
            )
    elif files.exists(files.join(workdir, FOLDER)):
        raise UserError(f"{workdir}: has {FOLDER}/ but no {CONFIG_FILE}; use a new --workdir")
    if distributed.is_main():
        for line in changes:
            say(line)
        files.write_text(vocab_path, vocab.decode())
        files.write_json(files.join(workdir, DATASET_FILE), dataclasses.asdict(dataset.manifest))
        files.write_json(config_path, to_dict(config))


def _changes(workdir: str, earlier: Config, now: Config, manifest: manifests.Manifest) -> list[str]:
    """What a person should know of a restart: settings that differ from the earlier start's, and another row order."""
    changed = changed_settings(earlier, now)
    lines = [f"changed since this run was last started: {line}" for line in changed]
    path = files.join(workdir, DATASET_FILE)
    before = manifests.load(path).splits["train"].shards if files.exists(path) else ()
    shards = manifest.splits["train"].shards
    if [shard.sha256 for shard in before] != [shard.sha256 for shard in shards]:
        rows = [sum(shard.rows for shard in each) for each in (before, shards)]
        lines.append(f"changed since this run was last started: the training rows ({rows[0]:,} -> {rows[1]:,})")
    elif not any(line.startswith(ORDER) for line in changed):
        return lines
    return [*lines, "rows come in another order from here on: some of this epoch's again, others not before the next"]


def changed_settings(earlier: Config, now: Config) -> list[str]:
    """Lines "name: old -> new" for every setting that differs."""
    a, b = trees.named_leaves(to_dict(earlier)), trees.named_leaves(to_dict(now))
    return [f"{name.replace('/', '.')}: {a[name]!r} -> {b[name]!r}" for name in b if a[name] != b[name]]


def _check_same_model(workdir: str, earlier: Config, now: Config) -> None:
    different = [
        line for line in changed_settings(earlier, now) if line.startswith(IDENTITY) and not line.startswith(FREE)
    ]
    if different:
        raise UserError(
            f"{workdir} holds another model ({'; '.join(different)}); use a new --workdir, or the settings it "
            "was started with"
        )


class _storage_errors:
    """Turns a storage failure inside the block into a UserError that says nothing was lost."""

    def __init__(self, workdir: str):
        self._workdir = workdir

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or isinstance(error, UserError):
            return
        text = str(error)
        if isinstance(error, OSError) or "No space left" in text or "RESOURCE_EXHAUSTED" in text:
            full = "No space left on device"
            raise UserError(
                f"{self._workdir}: the checkpoint could not be written "
                f"({full if full in text else _first_line(error)}); the one before it is whole; "
                "free space or mend the storage, then run the same command again"
            ) from error


def _quiet() -> None:
    """Keeps orbax from telling a failure at length: it is raised to us, and the user reads it in one line.

    Otherwise every array's task and every thread of a failed save prints a traceback, to the loggers of absl
    and asyncio or, once its event loop is closed, to `sys.unraisablehook`.
    """
    logging.getLogger("absl").addFilter(_not_of_orbax)
    logging.getLogger("asyncio").addFilter(_not_left_behind)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _not_left_behind(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()


class _UnraisableHook:
    def __init__(self, otherwise: Callable[[Any], None]):
        self._otherwise = otherwise

    def __call__(self, unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            self._otherwise(unraisable)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
