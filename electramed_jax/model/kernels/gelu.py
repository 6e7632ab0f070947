"""GELU of a product and its bias as a kernel. gelu_gpu.py has it for GPUs; on TPUs XLA's fusion is as fast."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp

from electramed_jax.model.kernels import platform


def load_kernels(platform_name: str) -> types.ModuleType | None:
    """Returns the module with the kernels of a platform; None if it has none."""
    if platform_name == "gpu" and platform.has_triton():
        from electramed_jax.model.kernels import gelu_gpu

        return gelu_gpu
    return None


def supports(row_length: int, width: int, dtype: jnp.dtype) -> bool:
    """Returns whether the current platform has a kernel for these sizes and this dtype."""
    module, shards = load_kernels(platform.current_platform()), platform.tensor_shards()
    return module is not None and width % shards == 0 and module.supports(row_length, width // shards, dtype)


def biased_gelu(x_BTF: jax.Array, bias_F: jax.Array) -> jax.Array:
    """Returns the GELU of x + bias, as layers.biased_gelu."""
    return platform.require(load_kernels(platform.current_platform())).biased_gelu(x_BTF, bias_F)
