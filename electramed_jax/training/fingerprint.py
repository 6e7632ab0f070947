"""Checksum of a train state that is the same on any mesh, and a check that all its numbers are finite.

Storage can return flipped bits without an error: orbax's files hold no checksum of the arrays. A sum of integers modulo
2^32 does not depend on the order of summation, hence neither on the mesh nor on the number of processes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from electramed_jax.training import sharding

UNSIGNED_DTYPES = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes per element


def state_checksum(tree: Any, mesh: Mesh) -> tuple[int, bool]:
    """Returns (checksum, whether every float is finite) of a tree of arrays on the mesh."""
    checksum, finite = jax.device_get(_compiled(mesh)(tree))
    return int(checksum), bool(finite)


@functools.lru_cache(maxsize=8)
def _compiled(mesh: Mesh) -> Any:
    return jax.jit(_checksum, out_shardings=sharding.replicated(mesh))


def _checksum(tree: Any) -> tuple[jax.Array, jax.Array]:
    checksum, finite = jnp.uint32(0), jnp.bool(True)
    for index, leaf in enumerate(jax.tree.leaves(tree)):
        checksum += jnp.uint32(2 * index + 1) * _leaf_checksum(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.isfinite(leaf).all()
    return checksum, finite


def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    """Returns the sum over the elements' bits, each as an integer times an odd number that depends on its index."""
    bits = jax.lax.bitcast_convert_type(leaf, UNSIGNED_DTYPES[leaf.dtype.itemsize]).astype(jnp.uint32)
    position, stride = jnp.zeros_like(bits), 1
    for axis in reversed(range(leaf.ndim)):  # `arange(size).reshape(shape)` would need communication on a mesh
        position += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        stride *= leaf.shape[axis]
    return jnp.sum(bits * (2 * position + 1), dtype=jnp.uint32)
