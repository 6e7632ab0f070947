"""Mesh axes of the batch, and random keys per row of the batch.

A step runs on the rows of each device separately (training/collectives.py). Random numbers for a row must depend on the
row's place in the batch, not on the number of devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BATCH_AXES = ("data", "fsdp")  # mesh axes that the rows of the batch are split over


def row_keys(key: jax.Array, count: int) -> jax.Array:
    """Returns the keys of this device's `count` rows, [count]. Each row of the batch has a key of its own."""
    row_numbers = jnp.arange(count)
    if set(BATCH_AXES) <= set(jax.sharding.get_abstract_mesh().manual_axes):  # inside shard_map: a part of the batch
        row_numbers += jax.lax.axis_index(BATCH_AXES) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, row_numbers)
