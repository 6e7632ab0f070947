"""Collectives of the train and eval steps: all explicit communication over the mesh axes `data` and `fsdp`.

A step is written for one device, which has its shard of the parameters and its rows of the batch. It all-gathers the
parameters along `fsdp`. The transpose of that gather reduce-scatters the gradients into the shards; `data` then adds up
what is left with a psum. Metric sums are added up with a psum. XLA inserts the collectives over `tensor`. An optimizer
that needs whole matrices exchanges shards for them with an all-to-all.
"""

from __future__ import annotations

import functools
import math
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

ROWS, REPLICATED = jax.P(batch_axes.BATCH_AXES), jax.P()  # out_specs of `FsdpCollectives.shard_map`


class FsdpCollectives:
    """Runs a function of parameters and rows on the devices of the current mesh. On one device it only calls it.

    Attributes:
      param_specs: the PartitionSpec of each parameter along `fsdp`: in_specs of parameters, out_specs of gradients.
    """

    def __init__(self, params: Any, model: ModelConfig):
        mesh = jax.sharding.get_abstract_mesh()
        self._enabled = _splits_batch(mesh)
        # XLA:CPU adds up 16-bit numbers in float32 anyway, and aborts at them where `tensor` splits an array.
        self._compute_dtype = jnp.dtype(jnp.float32 if platform.current_platform() == "cpu" else model.compute_dtype)
        self._manual_axes = _manual_axes(mesh)
        self.param_specs = (
            tree_rules.map_named(lambda name, x: _fsdp_spec(name, x.shape, mesh), params) if self._enabled else None
        )

    def shard_map(self, call: Callable[..., Any], out_specs: Any, params: Any, batch: Any, *replicated: Any) -> Any:
        """Returns `call(parameter shards, rows of each array of the batch, *replicated)`, run on every device.

        Args:
          out_specs: for each result `REPLICATED` (after `psum`), `ROWS` (one row per row of the batch), or
            `param_specs`.
        """
        if not self._enabled:
            return call(params, batch, *replicated)
        in_specs = (self.param_specs, ROWS, *[REPLICATED] * len(replicated))
        mapped = jax.shard_map(
            call, in_specs=in_specs, out_specs=out_specs, axis_names=self._manual_axes, check_vma=False
        )
        return mapped(params, batch, *replicated)

    def all_gather_params(self, params: Any) -> Any:
        """Inside `shard_map`: returns the full parameters along `fsdp`. Differentiable.

        Each parameter is gathered once, in the dtype of its rule. Stacks are gathered layer by layer, so that the first
        layer does not wait for the last one, nor its gradient.
        """
        if not self._enabled:
            return params

        def gather(name: str, shard: jax.Array, spec: jax.P) -> jax.Array:
            rule = sharding.PARAM_RULES(name)
            dtype = self._compute_dtype if rule.gather_dtype == "compute" else jnp.dtype(jnp.float32)
            axis = spec.index("fsdp") if "fsdp" in spec else None
            if rule.stacked and axis is not None:
                return jnp.stack([_all_gather(layer, axis - 1, dtype, dtype) for layer in unstack(shard, len(shard))])
            return _all_gather(shard, axis, dtype, jnp.dtype(jnp.float32) if rule.is_looked_up else dtype)

        return tree_rules.map_named(gather, params, self.param_specs)

    def psum(self, sums: Any) -> Any:
        """Inside `shard_map`: adds up the sums of each device's rows to sums over the batch."""
        return _psum(sums, batch_axes.BATCH_AXES) if self._enabled else sums


class MatrixCollectives:
    """Gives each device of the batch some whole matrices of the stacks that the parameters are, and shards back.

    On one device, and without a mesh, nothing is exchanged.
    """

    def __init__(self, params: Any):
        mesh = jax.sharding.get_abstract_mesh()
        self._enabled = _splits_batch(mesh)
        self._manual_axes = _manual_axes(mesh)
        self._specs = (
            tree_rules.map_named(lambda name, x: _fsdp_spec(name, x.shape, mesh), params) if self._enabled else None
        )

    def shard_map(self, call: Callable[[dict[str, jax.Array]], dict[str, jax.Array]], shards: Any) -> Any:
        """Returns `call(shards of the parameters by name)`, run on every device; the results have the same shards."""
        named = tree_rules.named_leaves(shards)
        if self._enabled:
            specs = tree_rules.named_leaves(self._specs)
            call = jax.shard_map(
                call, in_specs=(specs,), out_specs=specs, axis_names=self._manual_axes, check_vma=False
            )
        updates = call(named)
        return tree_rules.map_named(lambda name, _: updates[name], shards)

    def split_axis(self, name: str) -> int | None:
        """Returns the axis of a parameter that is split over fsdp."""
        spec = tree_rules.named_leaves(self._specs)[name] if self._enabled else ()
        return spec.index("fsdp") if "fsdp" in spec else None

    def to_whole(self, shard: jax.Array, axis: int | None) -> jax.Array:
        """Inside `shard_map`: returns this device's part of a stack, padded with zeros to a multiple of the devices.

        Args:
          shard: [S, R, C], of which `axis` is split over fsdp; None: the same on all devices.
          axis: 1 or 2.
        """
        if not self._enabled:
            return shard
        padding = -len(shard) % (jax.lax.axis_size("data") * jax.lax.axis_size("fsdp"))
        stack = jnp.pad(shard, ((0, padding), (0, 0), (0, 0)))
        if axis is None:
            return _own_part(_own_part(stack, "fsdp"), "data")
        return _own_part(jax.lax.all_to_all(stack, "fsdp", 0, axis, tiled=True), "data")

    def to_shards(self, whole: jax.Array, size: int, axis: int | None) -> jax.Array:
        """Inside `shard_map`: the inverse of `to_whole` for a stack of `size` matrices."""
        if not self._enabled:
            return whole
        stack = jax.lax.all_gather(whole, "data", axis=0, tiled=True)
        if axis is None:
            return jax.lax.all_gather(stack, "fsdp", axis=0, tiled=True)[:size]
        return jax.lax.all_to_all(stack, "fsdp", axis, 0, tiled=True)[:size]


def _own_part(stack: jax.Array, mesh_axis: str) -> jax.Array:
    part = len(stack) // jax.lax.axis_size(mesh_axis)
    return jax.lax.dynamic_slice_in_dim(stack, jax.lax.axis_index(mesh_axis) * part, part)


def _splits_batch(mesh: jax.sharding.AbstractMesh) -> bool:
    return not mesh.empty and mesh.shape["data"] * mesh.shape["fsdp"] > 1


def _manual_axes(mesh: jax.sharding.AbstractMesh) -> set[str]:
    """Returns the axes of `shard_map`; `tensor` is left to the compiler only where it splits something."""
    return {axis for axis, size in mesh.shape.items() if axis in batch_axes.BATCH_AXES or size == 1}


def _fsdp_spec(name: str, shape: tuple[int, ...], mesh: jax.sharding.AbstractMesh) -> jax.P:
    spec = sharding.partition_spec(name, shape, mesh)
    return jax.P(*[axis if axis == "fsdp" and mesh.shape[axis] > 1 else None for axis in spec])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _all_gather(shard: jax.Array, axis: int | None, dtype: jnp.dtype, result_dtype: jnp.dtype) -> jax.Array:
    """Returns the full parameter in `result_dtype`; `dtype` is that of the bytes that devices exchange."""
    if axis is None:
        return shard
    return jax.lax.all_gather(shard.astype(dtype), "fsdp", axis=axis, tiled=True).astype(result_dtype)


def _all_gather_backward(
    axis: int | None, dtype: jnp.dtype, result_dtype: jnp.dtype, _: None, g: jax.Array
) -> tuple[jax.Array]:
    del result_dtype  # that of g
    g = g.astype(dtype)
    if axis is None:
        return (_psum(g, batch_axes.BATCH_AXES).astype(jnp.float32),)
    scattered = jnp.moveaxis(_reduce_scatter(jnp.moveaxis(g, axis, 0)), 0, axis)
    return (_psum(scattered, ("data",)).astype(jnp.float32),)


def _reduce_scatter(g: jax.Array) -> jax.Array:
    """Returns this device's part, along the first axis, of the sum over `fsdp`.

    The shapes are chosen so that libtpu compiles a reduce-scatter and not an all-reduce.
    """
    if g.ndim > 3:  # queries, keys and values are not contiguous
        return jnp.stack([_reduce_scatter(g[:, i]) for i in range(g.shape[1])], axis=1)
    # Devices get an axis outside the tile; heads, which make a bad tile (see layers.Dense), are merged with their size.
    by_device = g.reshape(jax.lax.axis_size("fsdp"), -1, math.prod(g.shape[1:]))
    return jax.lax.psum_scatter(by_device, "fsdp").reshape(-1, *g.shape[1:])


def _psum(x: Any, axes: tuple[str, ...]) -> Any:
    axes = tuple(axis for axis in axes if jax.lax.axis_size(axis) > 1)
    return jax.lax.psum(x, axes) if axes else x


_all_gather.defvjp(lambda *arguments: (_all_gather(*arguments), None), _all_gather_backward)
