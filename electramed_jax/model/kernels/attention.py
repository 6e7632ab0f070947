"""Attention within documents as a Pallas kernel: scores, softmax and dropout stay in the chip's fast memory.

The result equals `model.attention.attend` up to rounding, and the same probabilities are dropped. attention_tpu.py has
the kernels for TPUs, attention_gpu.py those for GPUs.
"""

from __future__ import annotations

import types

import jax

from electramed_jax.model.kernels import platform
from electramed_jax.model.kernels.attention_spec import AttentionSpec


def load_kernels(platform_name: str) -> types.ModuleType | None:
    """Returns the module with the kernels of a platform; None if it has none."""
    if platform_name == "tpu":
        from electramed_jax.model.kernels import attention_tpu

        return attention_tpu
    if platform_name == "gpu" and platform.has_triton():
        from electramed_jax.model.kernels import attention_gpu

        return attention_gpu
    return None


def supports(row_length: int, num_heads: int, head_size: int, *, paired_dropout: bool = False) -> bool:
    """Returns whether the current platform has a kernel for these sizes, and for this form of dropout."""
    module, shards = load_kernels(platform.current_platform()), platform.tensor_shards()
    if module is None or num_heads % shards:
        return False
    return module.supports(row_length, num_heads // shards, head_size, paired_dropout=paired_dropout)


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    spec: AttentionSpec,
) -> jax.Array:
    """Returns softmax attention between tokens of the same segment, [B, T, F] with F = heads times head size.

    The projection to queries, keys and values is included, because each kernel needs them in its own layout.

    Args:
      x_BTD, kernel_D3F: input and projection, of one dtype.
      bias_3F: bias of the projection. The kernel sums its gradient.
      segments_BT: number of each token's document; the tokens of a document are contiguous.
      seeds_2BN: `dropout_seeds`; ignored at a dropout rate of 0.
      spec: static arguments.
    """
    module = platform.require(load_kernels(spec.interpret or platform.current_platform()))
    return module.attend(x_BTD, kernel_D3F, bias_3F, segments_BT, seeds_2BN, spec)
