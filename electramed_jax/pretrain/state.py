"""The train state of pre-training: the generator-discriminator pair as a tree of parameters."""

from __future__ import annotations

import functools

import jax
from flax import nnx
from jax.sharding import Mesh

from electramed_jax.config.pretrain import Config
from electramed_jax.model.electra import Electra
from electramed_jax.training import optimizer
from electramed_jax.training.state import Params, TrainState, abstract, create_train_state, init_sharded


def _build(config: Config) -> Electra:
    key = jax.random.key(config.seed)
    return Electra(config.model, with_generator=config.objective.kind != "uniform", rngs=nnx.Rngs(params=key))


@functools.lru_cache(maxsize=8)
def _abstract_model(config: Config) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: _build(config)), nnx.Param)


def merge_params(config: Config, params: Params) -> Electra:
    """The model with these parameters, to be called inside a traced function."""
    graphdef, abstract = _abstract_model(config)
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def init_params(config: Config) -> Params:
    """Fresh parameters; a function of `config.seed` and the sizes alone."""
    return nnx.to_pure_dict(nnx.split(_build(config), nnx.Param)[1])


def init_state(config: Config) -> TrainState:
    return create_train_state(init_params(config), optimizer.make(config.optimizer, config.total_steps))


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is allocated."""
    return abstract(lambda: init_state(config), mesh)


def create(config: Config, mesh: Mesh) -> TrainState:
    """A fresh state, born in its shardings: no device ever holds all of it, unless the mesh says so."""
    return init_sharded(lambda: init_state(config), mesh)
