"""Random bits for dropout: a cheap hash of an element's index, with seeds from JAX's own generator.

Dropout needs more random numbers than everything else together, at the lowest quality. threefry (jax.random's
generator, used for masks and samples, which decide a loss) takes about a hundred operations per number, and its numbers
have to be stored. This hash takes ten, so that bits are computed where they are used, in the forward and again in the
backward pass, inside a fused loop or a Pallas kernel. A bit depends only on the key and the element's index in the
global array, not on the mesh, the platform or the program.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from electramed_jax.model.ops import batch_axes

# Multipliers of the 32-bit finalizer "lowbias32" (C. Wellons, hash-prospector): every input bit flips every output bit
# with a probability of 1/2, to 0.2 %.
FIRST_MULTIPLIER, SECOND_MULTIPLIER = 0x7FEB352D, 0x846CA68B - 2**32


def dropout_seeds(key: jax.Array | None, shape: tuple[int, ...]) -> jax.Array | None:
    """Returns two seeds of the hash for each element of `shape`, int32[2, *shape]. Axis 0 of `shape` is rows.

    Returns None without a key (evaluation): nothing is dropped.
    """
    if key is None:
        return None
    pairs = jax.vmap(lambda key: jax.random.bits(key, (2, *shape[1:]), jnp.uint32))(batch_axes.row_keys(key, shape[0]))
    return jax.lax.bitcast_convert_type(pairs.swapaxes(0, 1), jnp.int32)


def hash_bits(counter: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """Returns int32 bits: the hash of a counter under two seeds, whose shapes broadcast to the counter's."""
    x = counter + first
    x ^= jax.lax.shift_right_logical(x, 16)
    x *= jnp.int32(FIRST_MULTIPLIER)
    x ^= second
    x ^= jax.lax.shift_right_logical(x, 15)
    x *= jnp.int32(SECOND_MULTIPLIER)
    return x ^ jax.lax.shift_right_logical(x, 16)


def keep_mask(counter: jax.Array, first: jax.Array, second: jax.Array, rate: float) -> jax.Array:
    """Returns booleans that are True with a probability of 1 - rate, to 2^-32."""
    return hash_bits(counter, first, second) >= jnp.int32(round(rate * 2**32) - 2**31)


def paired_keep_masks(
    counter: jax.Array, first: jax.Array, second: jax.Array, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Returns two arrays of booleans from one hash, each True with a probability of 1 - rate.

    The first is decided by the lower 16 bits, so its probability is that to 2^-16.
    """
    bits = hash_bits(counter, first, second)
    limit = jnp.int32(round(rate * 2**32) - 2**31)
    return jax.lax.shift_left(bits, 16) >= limit, bits >= limit


def paired_dropout_mask(seeds: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Returns `dropout_mask` of half the hashes: element i of the last axis shares one with element i + half.

    The counter of a pair is the index that its first element has in `dropout_mask`.
    """
    half = -(-shape[-1] // 2)
    lead, counter = seeds.ndim - 1, _count_elements(seeds, shape)[..., :half]
    first, second = seeds.reshape(2, *shape[:lead], *[1] * (len(shape) - lead))
    masks = paired_keep_masks(counter, first, second, rate)
    return jnp.concatenate(masks, axis=-1)[..., : shape[-1]]


def dropout_mask(seeds: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Returns bool[shape], True (keep) with a probability of 1 - rate.

    The leading axes of `shape` are those of the seeds; the elements of the other axes are counted.
    """
    lead, counter = seeds.ndim - 1, _count_elements(seeds, shape)
    first, second = seeds.reshape(2, *shape[:lead], *[1] * (len(shape) - lead))
    return keep_mask(counter, first, second, rate)


def _count_elements(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the index of each element among those that share its seeds, int32[shape]."""
    lead = seeds.ndim - 1
    assert math.prod(shape[lead:]) < 2**31, f"{shape[lead:]} has 2^31 elements or more: its index does not fit 32 bits"
    counter, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(range(lead, len(shape))):
        counter += jax.lax.broadcasted_iota(jnp.int32, shape, axis) * stride
        stride *= shape[axis]
    return counter
