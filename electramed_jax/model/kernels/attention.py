"""Attention inside documents as a kernel: scores, softmax and dropout never leave the chip's fast memory.

The result is `attention.attend`'s, down to which probabilities are dropped, to rounding: tests hold it so, interpreted.
attention_kernel_tpu.py has the kernels of a TPU, attention_kernel_gpu.py those of a GPU.
"""

from __future__ import annotations

import jax

from electramed_jax.model.kernels import attention_gpu, attention_tpu, platform

KERNELS = {"tpu": attention_tpu, "gpu": attention_gpu}


def supports(row_length: int, num_heads: int, head_size: int) -> bool:
    """Whether there is a kernel for what is traced now, and it has blocks for these sizes."""
    module, parts = KERNELS.get(platform.current_platform()), platform.tensor_shards()
    return module is not None and num_heads % parts == 0 and module.supports(row_length, num_heads // parts, head_size)


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    head_size: int,
    dropout_rate: float = 0.0,
    interpret: str | None = None,
) -> jax.Array:
    """Softmax attention between tokens of the same segment, [B, T, F], F being heads times `head_size`.

    Args:
      x_BTD, kernel_D3F: of one dtype; their product are queries, keys and values, here because each kernel wants them
        to lie in its own way.
      bias_3F: their biases; their gradient is a sum that a kernel can take on its way.
      segments_BT: number of each token's document; a document's tokens follow each other.
      seeds_2BN: `dropout_seeds` of dropout; not looked at where the rate is 0.
      interpret: "tpu" or "gpu": that kernel as plain JAX, on any machine; slow.
    """
    module = KERNELS[interpret or platform.current_platform()]
    return module.attend(
        x_BTD, kernel_D3F, bias_3F, segments_BT, seeds_2BN, head_size, dropout_rate, interpret is not None
    )
