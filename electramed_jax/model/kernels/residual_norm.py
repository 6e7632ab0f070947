"""Dropout, residual and layer norm as one Pallas kernel: each input is read once, each output written once.

XLA takes several passes over the arrays, most of them in the backward pass, which sums over features and over tokens.
The result equals `layers.layer_norm(x + layers.dropout(y))` up to rounding, and the same units are dropped.
residual_norm_tpu.py has the kernels for TPUs, residual_norm_gpu.py those for GPUs.
"""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp

from electramed_jax.model.kernels import platform

REPLICATED = jax.P()  # over tensor


def load_kernels(platform_name: str) -> types.ModuleType | None:
    """Returns the module with the kernels of a platform; None if it has none."""
    if platform_name == "tpu":
        from electramed_jax.model.kernels import residual_norm_tpu

        return residual_norm_tpu
    if platform_name == "gpu" and platform.has_triton():
        from electramed_jax.model.kernels import residual_norm_gpu

        return residual_norm_gpu
    return None


def supports(row_length: int, width: int) -> bool:
    """Returns whether the current platform has a kernel for these sizes."""
    module = load_kernels(platform.current_platform())
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
    """Returns the layer norm of x + dropout(y + y_bias), [B, T, D].

    Args:
      x_BTD, y_BTD: of one dtype, which the result has, too.
      y_bias_D: bias of the layer that computed y. It is an argument because the kernel sums its gradient.
      seeds_2B: `dropout_seeds`; ignored at a dropout rate of 0.
      interpret: "tpu" or "gpu" runs that kernel in Pallas' interpret mode, on any machine; slow.
    """
    return _forward(x_BTD, y_BTD, y_bias_D, scale_D, bias_D, seeds_2B, dropout_rate, interpret)[0]


def _forward(
    x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, bias: jax.Array, seeds: jax.Array,
    dropout_rate: float, interpret: str | None,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:  # fmt: skip
    module = platform.require(load_kernels(interpret or platform.current_platform()))
    call = functools.partial(module.forward, dropout_rate=dropout_rate, interpret=interpret is not None)
    h, statistics = platform.shard_over_tensor(call, REPLICATED, REPLICATED)(seeds, x, y, y_bias, scale, bias)
    return h, (seeds, x, y, y_bias, scale, *statistics)


def _backward(
    dropout_rate: float, interpret: str | None, residuals: tuple[jax.Array, ...], dh: jax.Array
) -> tuple[jax.Array | None, ...]:
    module = platform.require(load_kernels(interpret or platform.current_platform()))
    call = functools.partial(module.backward, dropout_rate=dropout_rate, interpret=interpret is not None)
    dx, dy, sums = platform.shard_over_tensor(call, REPLICATED, REPLICATED)(*residuals, dh)
    dscale, dbias, dy_bias = jnp.sum(sums, axis=0)
    return dx, dy, dy_bias, dscale, dbias, None


residual_norm.defvjp(_forward, _backward)
