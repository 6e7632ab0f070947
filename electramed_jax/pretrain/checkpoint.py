"""Opens the checkpoints of a pre-training workdir."""

from __future__ import annotations

import functools

from jax.sharding import Mesh

from electramed_jax.config.pretrain import Config
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.workdir import read_config
from electramed_jax.training.checkpoint import CheckpointManager, load_state
from electramed_jax.training.state import TrainState


def checkpoint_manager(workdir: str, config: Config) -> CheckpointManager:
    """Returns the checkpoint manager of `workdir/checkpoints` for the train state of `config`."""
    return CheckpointManager(
        workdir,
        functools.partial(abstract_state, config),
        max_to_keep=config.max_to_keep,
        keep_period=config.keep_period,
    )


def load_pretrained_state(workdir: str, mesh: Mesh, step: int | None = None) -> tuple[Config, TrainState]:
    """Returns the config of a workdir and its train state at `step` (None: the newest); see `load_state`."""
    config = read_config(workdir)
    return config, load_state(workdir, functools.partial(abstract_state, config), mesh, step)
