"""The train state, its initialization in shards, and flax modules as trees of parameters."""

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

from electramed_jax.training import sharding

Params = dict[str, Any]  # nested plain dicts of float32 arrays; see the legend in model/electra.py


@functools.partial(jax.tree_util.register_dataclass, data_fields=("step", "params", "opt_state"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes. Randomness is not in it: keys follow from the seed and the step."""

    step: jax.Array  # int32[]: steps done, and the number of the next one, counted from 0
    params: Params
    opt_state: Any


def model_params(model: nnx.Module) -> Params:
    """Returns the parameters of a module as nested plain dicts."""
    return nnx.to_pure_dict(nnx.split(model, nnx.Param)[1])


def abstract_model(build: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns the structure of the module that `build` makes, and its parameters as shapes; nothing is allocated."""
    return nnx.split(nnx.eval_shape(build), nnx.Param)


def merge_params(graphdef: nnx.GraphDef, abstract: nnx.State, params: Params) -> Any:
    """Returns the module of `abstract_model` with these parameters. To be called inside a traced function."""
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def create_train_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state of step 0."""
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def abstract_train_state(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of what `init` makes."""
    shapes = jax.eval_shape(init)
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        shapes,
        sharding.tree_shardings(shapes, mesh),
    )


def init_sharded(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """What `init` makes, in its shardings."""
    return jax.jit(init, out_shardings=get_shardings(abstract_train_state(init, mesh)))()


def get_shardings(tree: Any) -> Any:
    """The sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def replace_params(state: TrainState, params: Params) -> TrainState:
    """The state with other parameters (numpy or jax), put where the old ones were."""
    placed = jax.tree.map(
        lambda old, new: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
        state.params,
        params,
    )
    return dataclasses.replace(state, params=placed)
