"""Dropout, residual and layer norm as one kernel: what enters is read once, what leaves is written once.

XLA makes several passes of it, and in the backward pass, where sums go over features and over tokens, a good many.
The result is `layers.layer_norm(x + layers.dropout(y))`, down to which units are dropped, to rounding:
tests hold it so, interpreted. norm_kernel_tpu.py has the kernels of a TPU, norm_kernel_gpu.py those of a GPU.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from electramed_jax.model.kernels import platform, residual_norm_gpu, residual_norm_tpu

KERNELS = {"tpu": residual_norm_tpu, "gpu": residual_norm_gpu}
REPLICATED = jax.P()  # along tensor


def supports(row_length: int, width: int) -> bool:
    """Whether there is a kernel for what is traced now, and it has blocks for these sizes."""
    module = KERNELS.get(platform.current_platform())
    return module is not None and module.supports(row_length, width)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def residual_norm(
    x_BTD: jax.Array,
    y_BTD: jax.Array,
    y_bias_D: jax.Array,
    scale_D: jax.Array,
    bias_D: jax.Array,
    seeds_2B: jax.Array,
    dropout_rate: float = 0.0,
    interpret: str | None = None,
) -> jax.Array:
    """Layer norm of x + dropout(y + its bias), [B, T, D].

    Args:
      x_BTD, y_BTD: of one dtype, the result's.
      y_bias_D: of the layer that y comes from; here, because its gradient is a sum the kernel can take on its way.
      seeds_2B: `dropout_seeds` of dropout; not looked at where the rate is 0.
      interpret: "tpu" or "gpu": that kernel as plain JAX, on any machine; slow.
    """
    return _forward(x_BTD, y_BTD, y_bias_D, scale_D, bias_D, seeds_2B, dropout_rate, interpret)[0]


def _forward(
    x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, bias: jax.Array, seeds: jax.Array,
    dropout_rate: float, interpret: str | None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:  # fmt: skip
    module = KERNELS[interpret or platform.current_platform()]
    call = functools.partial(module.forward, dropout_rate=dropout_rate, interpret=interpret is not None)
    h, statistics = platform.shard_over_tensor(call, REPLICATED, REPLICATED)(seeds, x, y, y_bias, scale, bias)
    return h, (seeds, x, y, y_bias, scale, *statistics)


def _backward(
    dropout_rate: float, interpret: str | None, kept: tuple[jax.Array, ...], dh: jax.Array
) -> tuple[jax.Array | None, ...]:
    module = KERNELS[interpret or platform.current_platform()]
    call = functools.partial(module.backward, dropout_rate=dropout_rate, interpret=interpret is not None)
    dx, dy, sums = platform.shard_over_tensor(call, REPLICATED, REPLICATED)(*kept, dh)
    dscale, dbias, dy_bias = jnp.sum(sums, axis=0)
    return dx, dy, dy_bias, dscale, dbias, None


residual_norm.defvjp(_forward, _backward)
