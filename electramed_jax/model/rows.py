"""Where a device's rows stand in the batch.

A step runs on each device's rows alone (training/exchange.py). The model knows nothing of it, but where it draws
something for each row that must not depend on how many devices there are.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

AXES = ("data", "fsdp")  # mesh axes that the batch's rows are split over


def of_this_device(draw: Callable[[int], jax.Array], rows: int) -> jax.Array:
    """`draw(rows of the batch)`, [rows of the batch, ...], of which a device's `rows` are taken.

    The compiler computes no more of it than is taken.
    """
    if not set(AXES) <= set(jax.sharding.get_abstract_mesh().manual_axes):
        return draw(rows)  # what is traced now has the whole batch
    return jax.lax.dynamic_slice_in_dim(draw(rows * jax.lax.axis_size(AXES)), jax.lax.axis_index(AXES) * rows, rows)
