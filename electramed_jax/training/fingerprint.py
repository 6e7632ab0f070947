"""A state's bits as one number, the same on any mesh; and whether they are all numbers.

Storage returns flipped bits without a word: orbax's files carry no checksum of the arrays. A sum of whole numbers
modulo 2^32 does not depend on the order of summation, hence on neither mesh nor number of processes.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from electramed_jax.training import sharding

UNSIGNED_DTYPES = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes an element


def state_checksum(tree: Any, mesh: Mesh) -> tuple[int, bool]:
    """(fingerprint, whether every float is finite) of a tree of arrays on the mesh."""
    words, finite = jax.device_get(_compiled(mesh)(tree))
    return int(words), bool(finite)


@functools.lru_cache(maxsize=8)
def _compiled(mesh: Mesh) -> Any:
    return jax.jit(_checksum, out_shardings=sharding.replicated(mesh))


def _checksum(tree: Any) -> tuple[jax.Array, jax.Array]:
    words, finite = jnp.uint32(0), jnp.bool(True)
    for number, leaf in enumerate(jax.tree.leaves(tree)):
        words += jnp.uint32(2 * number + 1) * _leaf_checksum(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.isfinite(leaf).all()
    return words, finite


def _leaf_checksum(leaf: jax.Array) -> jax.Array:
    """The sum of an array's elements as whole numbers, each times an odd number of its own place."""
    bits = jax.lax.bitcast_convert_type(leaf, UNSIGNED_DTYPES[leaf.dtype.itemsize]).astype(jnp.uint32)
    place, stride = jnp.zeros_like(bits), 1
    for axis in reversed(range(leaf.ndim)):  # not `arange(size).reshape(shape)`, which sharding would have to move
        place += jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        stride *= leaf.shape[axis]
    return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)
