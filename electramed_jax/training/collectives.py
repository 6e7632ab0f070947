"""What devices tell each other in a step: every collective over `data` and `fsdp` is in this file.

A step is written for one device, which has its shard of the parameters and its rows of the batch. It gathers the
parameters whole along `fsdp`; their gradients are added up over all rows into the shards that devices keep, which is
the gather's transpose, a reduce-scatter; and sums are added up. What `tensor` splits is left to the compiler.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.model.kernels import platform
from electramed_jax.model.layers import unstack
from electramed_jax.model.ops import batch_axes
from electramed_jax.training import sharding

ROWS, REPLICATED = jax.P(batch_axes.BATCH_AXES), jax.P()

# Multiplied in the model's compute_dtype: gathered, and their gradients added up, as that.
MATMUL_PARAMS = re.compile(r"(?:layers/.*|project|head/dense)/kernel$")


class FsdpCollectives:
    """How the devices of the mesh that is set share a function of parameters and rows; of a single one, nothing."""

    def __init__(self, params: Any, model: ModelConfig):
        mesh = jax.sharding.get_abstract_mesh()
        self._over = not mesh.empty and mesh.shape["data"] * mesh.shape["fsdp"] > 1
        # XLA:CPU adds up 16-bit numbers as float32 anyway, and fails at it where `tensor` splits something.
        self._dtype = jnp.dtype(jnp.float32 if platform.current_platform() == "cpu" else model.compute_dtype)
        # Of tensor the compiler need not know anything where it splits nothing.
        self._axes = {axis for axis, size in mesh.shape.items() if axis in batch_axes.BATCH_AXES or size == 1}
        self.param_specs = (
            tree_rules.map_named(lambda name, x: _along_fsdp(name, x.shape, mesh), params) if self._over else None
        )

    def shard_map(self, call: Callable[..., Any], out: Any, params: Any, batch: Any, *others: Any) -> Any:
        """call(shards of the parameters, a device's rows of each array of the batch, others) on every device.

        Args:
          out: where each result lies: EVERYWHERE, after `added_up`; ROWS, a row for a row; or `shards`.
        """
        if not self._over:
            return call(params, batch, *others)
        specs = (self.param_specs, ROWS, *[REPLICATED] * len(others))
        mapped = jax.shard_map(call, in_specs=specs, out_specs=out, axis_names=self._axes, check_vma=False)
        return mapped(params, batch, *others)

    def all_gather_params(self, params: Any) -> Any:
        """Inside `call`: the parameters whole along fsdp, to be differentiated through.

        Each is gathered once, stacks layer by layer: neither the first nor the last has to wait for all.
        """
        if not self._over:
            return params

        def one(name: str, shard: jax.Array, spec: jax.P) -> jax.Array:
            dtype = self._dtype if MATMUL_PARAMS.search(name) else shard.dtype
            axis = spec.index("fsdp") if "fsdp" in spec else None
            if "layers/" in name and axis is not None:
                return jnp.stack([_all_gather(layer, axis - 1, dtype) for layer in unstack(shard, len(shard))])
            return _all_gather(shard, axis, dtype)

        return tree_rules.map_named(one, params, self.param_specs)

    def psum(self, sums: Any) -> Any:
        """Inside `call`: sums over the batch from sums over a device's rows."""
        return _psum(sums, batch_axes.BATCH_AXES) if self._over else sums


def _along_fsdp(name: str, shape: tuple[int, ...], mesh: Any) -> jax.P:
    return jax.P(
        *[
            axis if axis == "fsdp" and mesh.shape[axis] > 1 else None
            for axis in sharding.partition_spec(name, shape, mesh)
        ]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _all_gather(shard: jax.Array, axis: int | None, dtype: jnp.dtype) -> jax.Array:
    return shard if axis is None else jax.lax.all_gather(shard.astype(dtype), "fsdp", axis=axis, tiled=True)


def _all_gather_backward(axis: int | None, dtype: jnp.dtype, _: None, g: jax.Array) -> tuple[jax.Array]:
    if axis is None:
        return (_psum(g.astype(dtype), batch_axes.BATCH_AXES).astype(jnp.float32),)
    scattered = jnp.moveaxis(_reduce_scatter(jnp.moveaxis(g, axis, 0)), 0, axis)
    return (_psum(scattered, ("data",)).astype(jnp.float32),)


def _reduce_scatter(g: jax.Array) -> jax.Array:
    """A device's part along the first axis of the sum over fsdp, in forms of which libtpu makes no all-reduce."""
    if g.ndim > 3:  # queries, keys and values, which do not lie side by side
        return jnp.stack([_reduce_scatter(g[:, i]) for i in range(g.shape[1])], axis=1)
    # Devices have an axis of their own, which is no tile's; heads, no good tile (see layers.Dense), have none.
    apart = g.reshape(jax.lax.axis_size("fsdp"), -1, math.prod(g.shape[1:]))
    return jax.lax.psum_scatter(apart, "fsdp").reshape(-1, *g.shape[1:])


def _psum(x: Any, axes: tuple[str, ...]) -> Any:
    axes = tuple(axis for axis in axes if jax.lax.axis_size(axis) > 1)
    return jax.lax.psum(x, axes) if axes else x


_all_gather.defvjp(lambda shard, *how: (_all_gather(shard, *how), None), _all_gather_backward)
