"""What training changes, and the one bridge between flax modules and plain trees of arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from electramed_jax.config.pretrain import Config
from electramed_jax.model.electra import Electra
from electramed_jax.training import optimizer, sharding

Params = dict[str, Any]  # nested plain dicts of float32 arrays; see the legend in model/electra.py


@functools.partial(jax.tree_util.register_dataclass, data_fields=("step", "params", "opt_state"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes. Randomness is not in it: keys follow from the seed and the step."""

    step: jax.Array  # int32[]: steps done, and the number of the next one, counted from 0
    params: Params
    opt_state: Any


def _build(config: Config) -> Electra:
    key = jax.random.key(config.seed)
    return Electra(config.model, with_generator=config.objective.kind != "uniform", rngs=nnx.Rngs(params=key))


@functools.lru_cache(maxsize=8)
def _skeleton(config: Config) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: _build(config)), nnx.Param)


def bind(config: Config, params: Params) -> Electra:
    """The model with these parameters, to be called inside a traced function."""
    graphdef, abstract = _skeleton(config)
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def init_params(config: Config) -> Params:
    """Fresh parameters; a function of `config.seed` and the sizes alone."""
    return nnx.to_pure_dict(nnx.split(_build(config), nnx.Param)[1])


def init_state(config: Config) -> TrainState:
    return fresh(init_params(config), optimizer.make(config.optimizer, config.total_steps))


def fresh(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state of step 0."""
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def abstract_state(config: Config, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of the state; nothing is allocated."""
    return abstract(lambda: init_state(config), mesh)


def abstract(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of what `init` makes."""
    shapes = jax.eval_shape(init)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        sharding.tree_shardings(shapes, mesh),
    )


def create(config: Config, mesh: Mesh) -> TrainState:
    """A fresh state, born in its shardings: no device ever holds all of it, unless the mesh says so."""
    return born_sharded(lambda: init_state(config), mesh)


def born_sharded(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """What `init` makes, in its shardings."""
    return jax.jit(init, out_shardings=shardings_of(abstract(init, mesh)))()


def shardings_of(tree: Any) -> Any:
    """The sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def with_params(state: TrainState, params: Params) -> TrainState:
    """The state with other parameters (numpy or jax), put where the old ones were."""
    placed = jax.tree.map(
        lambda old, new: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
        state.params,
        params,
    )
    return dataclasses.replace(state, params=placed)
