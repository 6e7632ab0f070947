"""Initialization of the pre-training state: parameters of generator and discriminator, and the optimizer state."""

from __future__ import annotations

import functools

import jax
from flax import nnx
from jax.sharding import Mesh

from electramed_jax.config.pretrain import Config
from electramed_jax.model.automatic import plain_model
from electramed_jax.model.electra import Electra
from electramed_jax.training import state as state_lib
from electramed_jax.training.optimizers import optimizer
from electramed_jax.training.state import Params, TrainState, abstract_train_state, create_train_state, init_sharded


def _build(config: Config) -> Electra:
    key = jax.random.key(config.seed)
    model = plain_model(config.model)  # the parameters do not depend on the automatic settings
    return Electra(model, config.objective, rngs=nnx.Rngs(params=key))


@functools.lru_cache(maxsize=8)
def _abstract_model(config: Config) -> tuple[nnx.GraphDef, nnx.State]:
    return state_lib.abstract_model(lambda: _build(config))


def merge_params(config: Config, params: Params) -> Electra:
    """Returns the model with these parameters. Call it inside a traced function."""
    return state_lib.merge_params(*_abstract_model(config), params)


def init_params(config: Config) -> Params:
    """Returns initial parameters, which depend on `config.seed`, the model and the objective alone."""
    return state_lib.model_params(_build(config))


def init_state(config: Config) -> TrainState:
    """Returns the train state of step 0."""
    return create_train_state(init_params(config), optimizer.make_optimizer(config.optimizer, config.total_steps))


@functools.lru_cache(maxsize=8)
def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Returns the shapes, dtypes and shardings of the train state; no array is allocated."""
    return abstract_train_state(lambda: init_state(config), mesh)


def create(config: Config, mesh: Mesh) -> TrainState:
    """Returns the train state of step 0, initialized in its shardings: with fsdp no device holds a full copy."""
    return init_sharded(lambda: init_state(config), mesh)
