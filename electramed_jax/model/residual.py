"""The end of each sub-layer: its last dense layer, dropout, residual and (post-) layer norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from electramed_jax.model.kernels import residual_norm as norm_kernel
from electramed_jax.model.layers import Dense, LayerNorm, dropout
from electramed_jax.model.ops.remat import saved


def add_and_norm(
    x_BTD: jax.Array, dense: Dense, y: jax.Array, norm: LayerNorm, rate: float, words_2B: jax.Array | None, kernels: str
) -> jax.Array:
    """norm(x + dropout(dense(y))), by one kernel where there is one; `kernels` is the config's."""
    product_BTD = saved(dense.product(y))
    if kernels == "auto" and norm_kernel.suits(*x_BTD.shape[1:]):
        if words_2B is None or rate == 0.0:
            rate, words_2B = 0.0, jnp.zeros((2, len(x_BTD)), jnp.int32)
        biases = (dense.bias[...], norm.scale[...], norm.bias[...])
        return norm_kernel.residual_norm(x_BTD, product_BTD, *biases, words_2B, rate)
    return norm(x_BTD + dropout(product_BTD + dense.spread_bias(), rate, words_2B))
