"""Checkpoints of a pre-training run."""

from __future__ import annotations

import functools

from jax.sharding import Mesh

from electramed_jax.config.pretrain import Config
from electramed_jax.pretrain import state
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.pretrain.workdir import read_config
from electramed_jax.training.checkpoint import AbstractState, CheckpointManager, load_state
from electramed_jax.training.state import TrainState


class PretrainCheckpointManager(CheckpointManager):
    """Those of a pre-training run."""

    def __init__(self, workdir: str, config: Config):
        """Claims the workdir for this run on `config.data.directory`, or finds that it is already this run's.

        Raises:
          UserError: the workdir holds another model, or checkpoints without a config.
        """
        workdirs.init_workdir(workdir, config)
        super().__init__(workdir, _state_of(config), keep=config.keep_checkpoints, keep_every=config.keep_every)


def _state_of(config: Config) -> AbstractState:
    return functools.partial(state.abstract_state, config)


def load_pretrained_state(workdir: str, mesh: Mesh, step: int | None = None) -> tuple[Config, TrainState]:
    """A finished or running pre-training workdir's config and state at `step`; see `load_state`."""
    config = read_config(workdir)
    return config, load_state(workdir, _state_of(config), mesh, step)
