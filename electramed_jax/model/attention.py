"""Self-attention within documents."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.pretrain import EncoderConfig, ModelConfig
from electramed_jax.model.kernels import attention
from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.layers import Dense, LayerNorm, add_and_norm, dropout, truncated_normal
from electramed_jax.model.ops import cpu_matmul
from electramed_jax.model.ops.numerics import MASK_VALUE
from electramed_jax.model.ops.remat import save_for_backward

# Tokens of its document that a token attends to: all, itself and those before, or itself and those after.
Direction = Literal["both", "left_to_right", "right_to_left"]


class SelfAttention(nnx.Module):
    """Multi-head attention, output projection, dropout, residual and (post-) layer norm."""

    def __init__(self, sizes: EncoderConfig, config: ModelConfig, *, direction: Direction = "both", rngs: nnx.Rngs):
        D, N, H = sizes.hidden_size, sizes.num_heads, sizes.head_size
        self.num_heads, self.head_size, self.direction = N, H, direction
        self.paired_dropout = config.attention_dropout_hash == "paired"
        self.use_kernel = config.uses_kernel("attention") and direction == "both"
        self.use_norm_kernel = config.uses_kernel("residual_norm")
        self.dropout_rate, self.attention_dropout_rate = config.dropout, config.attention_dropout
        dense = functools.partial(
            Dense,
            rngs=rngs,
            dtype=jnp.dtype(config.compute_dtype),
            initializer=truncated_normal(config.kernel_stddev),
        )
        self.qkv = dense("btd,dcf->cbtf", (D, 3, N, H), (3, N, H), einsum_shape=(D, 3, N * H))
        self.out = dense("btf,fd->btd", (N, H, D), (D,), einsum_shape=(N * H, D))
        self.norm = LayerNorm(D)

    @jax.named_scope("attention")
    def __call__(
        self,
        x_BTD: jax.Array,
        segments_BT: jax.Array,
        probability_seeds_2BN: jax.Array | None,
        output_seeds_2B: jax.Array | None,
    ) -> jax.Array:
        """Returns the layer's output [B, T, D]. Without seeds nothing is dropped."""
        shape = (segments_BT.shape[1], self.num_heads, self.head_size)
        if self.use_kernel and attention.supports(*shape, paired_dropout=self.paired_dropout):
            y_BTF = self._with_kernel(x_BTD, segments_BT, probability_seeds_2BN)
        else:
            y_BTF = self._with_einsum(x_BTD, segments_BT, probability_seeds_2BN)
        return add_and_norm(
            x_BTD, self.out, y_BTF, self.norm, self.dropout_rate, output_seeds_2B, use_kernel=self.use_norm_kernel
        )

    def _with_einsum(self, x_BTD: jax.Array, segments_BT: jax.Array, seeds_2BN: jax.Array | None) -> jax.Array:
        qkv_3BTF = save_for_backward(self.qkv(x_BTD))
        q_BTNH, k_BTNH, v_BTNH = qkv_3BTF.reshape(*qkv_3BTF.shape[:3], self.num_heads, self.head_size)
        rate = self.attention_dropout_rate
        y_BTNH = attend(
            q_BTNH,
            k_BTNH,
            v_BTNH,
            segments_BT,
            self.qkv.dtype,
            dropout_rate=rate,
            seeds_2BN=seeds_2BN,
            paired_dropout=self.paired_dropout,
            direction=self.direction,
        )
        return save_for_backward(y_BTNH.reshape(qkv_3BTF.shape[1:]))

    def _with_kernel(self, x_BTD: jax.Array, segments_BT: jax.Array, seeds_2BN: jax.Array | None) -> jax.Array:
        rate = self.attention_dropout_rate
        if seeds_2BN is None or rate == 0.0:
            rate, seeds_2BN = 0.0, jnp.zeros((2, len(x_BTD), self.num_heads), jnp.int32)
        dtype, bias_3F = self.qkv.dtype, self.qkv.bias[...].reshape(3, -1)
        kernel_D3F = self.qkv.kernel[...].astype(dtype).reshape(self.qkv.einsum_shape)
        spec = AttentionSpec(self.head_size, rate, self.paired_dropout)
        return attention.attend(x_BTD.astype(dtype), kernel_D3F, bias_3F, segments_BT, seeds_2BN, spec)


def attend(
    q_BTNH: jax.Array,
    k_BTNH: jax.Array,
    v_BTNH: jax.Array,
    segments_BT: jax.Array,
    dtype: jnp.dtype,
    *,
    dropout_rate: float = 0.0,
    seeds_2BN: jax.Array | None = None,
    paired_dropout: bool = False,
    direction: Direction = "both",
) -> jax.Array:
    """Returns softmax attention between tokens of the same segment, in one direction or both, [B, T, N, H].

    Matrix products run in `dtype`, scores and softmax in float32. Padding is segment 0 and attends to padding, so no
    row of the softmax is empty.
    """
    on_cpu = cpu_matmul.use_cpu_matmul(dtype)
    if on_cpu:
        scores_BNTS = cpu_matmul.matmul(q_BTNH.transpose(0, 2, 1, 3), k_BTNH.transpose(0, 2, 3, 1))
    else:
        scores_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH, preferred_element_type=jnp.float32)
    scores_BNTS *= q_BTNH.shape[-1] ** -0.5
    same_B1TS = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
    if direction != "both":
        query_T1, key_1T = jnp.arange(segments_BT.shape[1])[:, None], jnp.arange(segments_BT.shape[1])[None]
        visible_TS = key_1T <= query_T1 if direction == "left_to_right" else key_1T >= query_T1
        same_B1TS &= visible_TS[None, None]
    probabilities_BNTS = jax.nn.softmax(jnp.where(same_B1TS, scores_BNTS, MASK_VALUE), axis=-1)
    probabilities_BNTS = dropout(
        probabilities_BNTS.astype(v_BTNH.dtype), dropout_rate, seeds_2BN, paired=paired_dropout
    )
    if on_cpu:
        y_BNHT = cpu_matmul.matmul(v_BTNH.transpose(0, 2, 3, 1), probabilities_BNTS, True)
        return y_BNHT.transpose(0, 3, 1, 2).astype(v_BTNH.dtype)
    return jnp.einsum("bnts,bsnh->btnh", probabilities_BNTS, v_BTNH)
