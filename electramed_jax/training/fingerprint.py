"""Checksum of a train state: compared with a checkpoint's when it is restored, and between replicas while it trains.

Storage can return flipped bits without an error: orbax's files hold no checksum of the arrays. So can a device: one
replica then trains on wrong parameters, and all gradients are wrong from there on. A sum of integers modulo 2^32 does
not depend on the order of summation, hence neither on the mesh nor on the number of processes.

Each device sums up its own shards in one pass over its memory, without communication; only the sums are gathered.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.training import sharding

UNSIGNED_DTYPES = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes per element

Axes = tuple[tuple[str, ...], ...]  # the mesh axes over which each dimension of an array is split


class Checksum(NamedTuple):
    """Checksum of a tree of arrays.

    Attributes:
      value: the same for the same bits, on any mesh.
      finite: whether every float is finite.
      corrupt: the devices with other bits than their replicas, such as "device 3 of process 1 (host)".
    """

    value: int
    finite: bool
    corrupt: tuple[str, ...]


def state_checksum(tree: Any, mesh: Mesh) -> Checksum:
    """Returns the checksum of a tree of arrays on the mesh. A collective."""
    leaves = jax.tree.leaves(tree)
    axes = tuple(_split_axes(leaf) for leaf in leaves)
    groups = tuple(sorted({_used(one) for one in axes}))
    sums, finite = jax.device_get(_compiled(mesh, axes, groups)(leaves))
    names, value = mesh.axis_names, 0
    corrupt: dict[int, str] = {}
    for used, devices_sums in zip(groups, sums, strict=True):
        one_replica = tuple(slice(None) if name in used else 0 for name in names)
        value += int(devices_sums[one_replica].sum(dtype=np.uint64))
        # [shards, replicas]: the sums of a row must be equal
        order = [names.index(name) for name in used] + [i for i, name in enumerate(names) if name not in used]
        shards = int(np.prod([mesh.shape[name] for name in used], dtype=np.int64))
        rows, devices = (x.transpose(order).reshape(shards, -1) for x in (devices_sums, mesh.devices))
        for row, replicas in zip(rows, devices, strict=True):
            corrupt |= {device.id: _describe(device) for device in _minority(row, replicas)}
    return Checksum(value % 2**32, bool(finite.all()), tuple(corrupt.values()))


def check_replicas(checksum: Checksum, step: int) -> None:
    """Raises a UserError, in every process alike, if the devices do not hold the same parameters after `step`."""
    if checksum.corrupt:
        raise UserError(
            f"after step {step:,} the train state of {' and '.join(checksum.corrupt)} differs from that of its "
            "replicas: a device or its memory computes wrong bits; stopped, no checkpoint of this state was written; "
            "replace the host, then run the same command again"
        )


def _minority(sums: np.ndarray, devices: np.ndarray) -> list[Any]:
    """Returns the devices whose sum is not the most frequent one; all if half of them or fewer agree."""
    values, counts = np.unique(sums, return_counts=True)
    if len(values) == 1:
        return []
    if 2 * counts.max() <= len(sums):
        return list(devices)
    return list(devices[sums != values[counts.argmax()]])


def _describe(device: jax.Device) -> str:
    return f"device {device.id} of {distributed.get_watchdog().name(device.process_index)}"


def _split_axes(leaf: jax.Array) -> Axes:
    spec = tuple(leaf.sharding.spec) if isinstance(leaf.sharding, jax.sharding.NamedSharding) else ()
    by_dimension = [(axis,) if isinstance(axis, str) else tuple(axis or ()) for axis in spec]
    return tuple(by_dimension) + ((),) * (leaf.ndim - len(by_dimension))


def _used(axes: Axes) -> tuple[str, ...]:
    return tuple(sorted(name for names in axes for name in names))


@functools.lru_cache(maxsize=8)
def _compiled(mesh: Mesh, axes: tuple[Axes, ...], groups: tuple[tuple[str, ...], ...]) -> Any:
    """Returns the jitted function (leaves) -> (uint32[groups, *mesh], bool[*mesh]), both replicated."""
    one_device = (1,) * len(mesh.axis_names)

    def sum_shards(leaves: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        sums, finite = [jnp.uint32(0)] * len(groups), jnp.bool(True)
        for index, (leaf, leaf_axes) in enumerate(zip(leaves, axes, strict=True)):
            sums[groups.index(_used(leaf_axes))] += jnp.uint32(2 * index + 1) * _shard_checksum(leaf, leaf_axes, mesh)
            if jnp.issubdtype(leaf.dtype, jnp.floating):
                finite &= jnp.isfinite(leaf).all()
        return jnp.stack(sums).reshape(len(groups), *one_device), finite.reshape(one_device)

    on_devices = jax.shard_map(
        sum_shards,
        mesh=mesh,
        in_specs=([jax.P(*(names or None for names in leaf_axes)) for leaf_axes in axes],),
        out_specs=(jax.P(None, *mesh.axis_names), jax.P(*mesh.axis_names)),
        check_vma=False,
    )
    return jax.jit(on_devices, out_shardings=sharding.replicated(mesh))


def _shard_checksum(shard: jax.Array, axes: Axes, mesh: Mesh) -> jax.Array:
    """Returns the sum over the elements' bits, each as an integer times an odd number that depends on its index.

    The index is that in the whole array, so that the sums of all shards add up to the checksum of the array.
    """
    bits = jax.lax.bitcast_convert_type(shard, UNSIGNED_DTYPES[shard.dtype.itemsize]).astype(jnp.uint32)
    position, stride = jnp.zeros_like(bits), 1
    for dimension in reversed(range(shard.ndim)):
        size = shard.shape[dimension]
        index = jax.lax.broadcasted_iota(jnp.uint32, shard.shape, dimension)
        if names := axes[dimension]:
            index += jax.lax.axis_index(names).astype(jnp.uint32) * jnp.uint32(size)
            size *= int(np.prod([mesh.shape[name] for name in names], dtype=np.int64))
        position += jnp.uint32(stride % 2**32) * index
        stride *= size
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)
