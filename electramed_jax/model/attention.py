"""Self-attention that stays inside a document."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config import EncoderConfig, ModelConfig
from electramed_jax.model.layers import Dense, LayerNorm, dropout, split_key, truncated_normal

NEVER = -1e9  # added to the score of a key in another document: its probability is exactly 0 in float32


class SelfAttention(nnx.Module):
    """Multi-head attention, its output projection, dropout, residual and (post-) layer norm."""

    def __init__(self, sizes: EncoderConfig, config: ModelConfig, *, rngs: nnx.Rngs):
        D, N, H = sizes.hidden_size, sizes.num_heads, sizes.head_size
        self.dropout_rate, self.attention_dropout_rate = config.dropout, config.attention_dropout
        common = dict(
            rngs=rngs,
            dtype=jnp.dtype(config.compute_dtype),
            initializer=truncated_normal(config.kernel_stddev),
        )
        self.qkv = Dense("btd,dcnh->btcnh", (D, 3, N, H), (3, N, H), **common)
        self.out = Dense("btnh,nhd->btd", (N, H, D), (D,), **common)
        self.norm = LayerNorm(D)

    @jax.named_scope("attention")
    def __call__(self, x_BTD: jax.Array, segments_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        probability_key, output_key = split_key(key, 2)
        q_BTNH, k_BTNH, v_BTNH = jnp.unstack(self.qkv(x_BTD), axis=2)
        y_BTNH = attend(
            q_BTNH,
            k_BTNH,
            v_BTNH,
            segments_BT,
            dropout_rate=self.attention_dropout_rate,
            key=probability_key,
        )
        return self.norm(x_BTD + dropout(self.out(y_BTNH), self.dropout_rate, output_key))


def attend(
    q_BTNH: jax.Array,
    k_BTNH: jax.Array,
    v_BTNH: jax.Array,
    segments_BT: jax.Array,
    *,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """Softmax attention between tokens of the same segment; scores and softmax in float32.

    Padding is segment 0 and attends to padding, so no row of the softmax is empty.
    """
    scores_BNTS = jnp.einsum("btnh,bsnh->bnts", q_BTNH, k_BTNH, preferred_element_type=jnp.float32)
    scores_BNTS *= q_BTNH.shape[-1] ** -0.5
    same_B1TS = (segments_BT[:, :, None] == segments_BT[:, None, :])[:, None]
    probabilities_BNTS = jax.nn.softmax(jnp.where(same_B1TS, scores_BNTS, NEVER), axis=-1)
    probabilities_BNTS = dropout(probabilities_BNTS.astype(v_BTNH.dtype), dropout_rate, key, lead=2)
    return jnp.einsum("bnts,bsnh->btnh", probabilities_BNTS, v_BTNH)
