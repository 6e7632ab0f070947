"""The train state, its sharded initialization, and flax modules as trees of parameters."""

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

Params = dict[str, Any]  # nested dicts of float32 arrays; model/electra.py has the names


@functools.partial(jax.tree_util.register_dataclass, data_fields=("step", "params", "opt_state"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step reads and writes. It holds no random key: keys are derived from the seed and the step."""

    step: jax.Array  # int32[]: number of completed steps, which is the index of the next step
    params: Params
    opt_state: Any  # the state of the optax transformation


def model_params(model: nnx.Module) -> Params:
    """Returns the parameters of a module as nested plain dicts."""
    return nnx.to_pure_dict(nnx.split(model, nnx.Param)[1])


def abstract_model(build: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """Returns the graph of the module that `build` makes, and its parameters as shapes. Allocates nothing."""
    return nnx.split(nnx.eval_shape(build), nnx.Param)


def merge_params(graphdef: nnx.GraphDef, abstract: nnx.State, params: Params) -> Any:
    """Returns the module of `abstract_model` with these parameters. To be called inside a traced function."""
    state = jax.tree.map(lambda x: x, abstract)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graphdef, state)


def create_train_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """Returns the state of step 0."""
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def abstract_train_state(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Returns the shapes, dtypes and shardings of the state that `init` makes."""
    shapes = jax.eval_shape(init)
    return jax.tree.map(
        lambda leaf, leaf_sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf_sharding),
        shapes,
        sharding.tree_shardings(shapes, mesh),
    )


def init_sharded(init: Callable[[], TrainState], mesh: Mesh) -> TrainState:
    """Runs `init` under `jit` with `out_shardings`, so that no device holds a full copy of the parameters."""
    return jax.jit(init, out_shardings=get_shardings(abstract_train_state(init, mesh)))()


def get_shardings(tree: Any) -> Any:
    """Returns the sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def replace_params(state: TrainState, params: Params) -> TrainState:
    """Replaces the parameters of a state by other arrays (numpy or jax), placed in the shardings of the old ones."""
    placed = jax.tree.map(
        lambda old, new: jax.device_put(jnp.asarray(new, old.dtype), old.sharding),
        state.params,
        params,
    )
    return dataclasses.replace(state, params=placed)
