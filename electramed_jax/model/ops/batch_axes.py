"""Where a device's rows stand in the batch.

A step runs on each device's rows alone (training/exchange.py). The model knows nothing of it, but where it draws
something for a row: that must depend on the row, not on how many devices there are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

BATCH_AXES = ("data", "fsdp")  # mesh axes that the batch's rows are split over


def row_keys(key: jax.Array, count: int) -> jax.Array:
    """Keys of this device's `count` rows, [count]: each row of the batch has one of its own."""
    numbers = jnp.arange(count)
    if set(BATCH_AXES) <= set(
        jax.sharding.get_abstract_mesh().manual_axes
    ):  # what is traced now has not the whole batch
        numbers += jax.lax.axis_index(BATCH_AXES) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
