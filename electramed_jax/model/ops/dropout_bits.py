"""Random bits for dropout: a cheap hash of where an element stands, keyed by JAX's own generator.

Dropout asks for more random numbers than everything else together, and of the least quality. threefry (jax.random's,
which draws all that decides a loss: masks and samples) takes some hundred operations a number, and its numbers have to
be stored; this takes ten, so that they are made where they are used, in the forward and again in the backward pass,
inside a fused loop or a hand-written kernel. A number depends on the key and the element's place in the global array
alone: not on the mesh, the platform or the program it is computed in.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from electramed_jax.model.ops import batch_axes

# Multipliers of the 32-bit finaliser "lowbias32" (C. Wellons, hash-prospector): every input bit flips every output bit
# with a probability of a half, to 0.2 %.
FIRST_MULTIPLIER, SECOND_MULTIPLIER = 0x7FEB352D, 0x846CA68B - 2**32


def dropout_seeds(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Two 32-bit words for each of `shape`, int32[2, *shape], that key the hash there: `shape` begins with rows.

    None without a key, as in evaluation: nothing is dropped.
    """
    if key is None:
        return None
    pairs = jax.vmap(lambda key: jax.random.bits(key, (2, *shape[1:]), jnp.uint32))(batch_axes.row_keys(key, shape[0]))
    return jax.lax.bitcast_convert_type(pairs.swapaxes(0, 1), jnp.int32)


def hash_bits(counter: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """int32 bits of a counter under two key words, whose shapes broadcast to its own."""
    x = counter + first
    x ^= jax.lax.shift_right_logical(x, 16)
    x *= jnp.int32(FIRST_MULTIPLIER)
    x ^= second
    x ^= jax.lax.shift_right_logical(x, 15)
    x *= jnp.int32(SECOND_MULTIPLIER)
    return x ^ jax.lax.shift_right_logical(x, 16)


def keep_mask(counter: jax.Array, first: jax.Array, second: jax.Array, rate: float) -> jax.Array:
    """True with a probability of 1 - rate, to 2^-32."""
    return hash_bits(counter, first, second) >= jnp.int32(round(rate * 2**32) - 2**31)


def dropout_mask(seeds: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """bool[shape], True with a probability of 1 - rate.

    Each place of shape's first axes, those of `dropout_seeds`, has key words of its own; within it, elements are counted.
    """
    lead = seeds.ndim - 1
    assert math.prod(shape[lead:]) < 2**31, f"{shape[lead:]} is too large to be counted in 32 bits"
    counter, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(range(lead, len(shape))):
        counter += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * stride
        stride *= shape[axis]
    first, second = seeds.reshape(2, *shape[:lead], *[1] * (len(shape) - lead))
    return keep_mask(counter, first, second, rate)
