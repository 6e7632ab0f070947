"""Heads of the pre-training networks, and the likelihood of a token under logits over the vocabulary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.model.layers import Dense, LayerNorm, einsum_f32, gelu, glorot_uniform, truncated_normal
from electramed_jax.model.ops import cpu_matmul
from electramed_jax.model.ops.numerics import MASK_VALUE


class DiscriminatorHead(nnx.Module):
    """Replaced-token head: one float32 logit per token."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, dtype, initializer = (
            config.hidden_size,
            jnp.dtype(config.compute_dtype),
            truncated_normal(config.kernel_stddev),
        )
        self.dense = Dense("btd,de->bte", (D, D), (D,), rngs=rngs, dtype=dtype, initializer=initializer)
        self.logit = Dense("btd,de->bte", (D, 1), (1,), rngs=rngs, dtype=jnp.float32, initializer=glorot_uniform)

    def __call__(self, h_BTD: jax.Array) -> jax.Array:
        """Returns logits float32[B, T]."""
        return self.logit(gelu(self.dense(h_BTD)))[..., 0]


class TokenHead(nnx.Module):
    """Head that predicts tokens, tied to the word table: float32 logits over the padded vocabulary."""

    def __init__(self, config: ModelConfig, hidden_size: int, embedding_size: int, *, rngs: nnx.Rngs):
        self.vocab_size, self.dtype = config.vocab_size, jnp.dtype(config.compute_dtype)
        D, E = hidden_size, embedding_size
        initializer = truncated_normal(config.kernel_stddev)
        self.dense = Dense("bmd,de->bme", (D, E), (E,), rngs=rngs, dtype=self.dtype, initializer=initializer)
        self.norm = LayerNorm(E)
        self.output_bias = nnx.Param(jnp.zeros((config.padded_vocab_size,), jnp.float32))

    @jax.named_scope("token_head")
    def __call__(self, h_BMD: jax.Array, word_VE: jax.Array) -> jax.Array:
        """Returns logits float32[B, M, V] for hidden states at gathered positions."""
        x_BME = self.norm(gelu(self.dense(h_BMD)))
        if cpu_matmul.use_cpu_matmul(self.dtype):
            flat = cpu_matmul.matmul(x_BME.reshape(-1, x_BME.shape[-1]), word_VE, True)
            logits_BMV = flat.reshape(*x_BME.shape[:2], -1)
        else:
            logits_BMV = einsum_f32("bme,ve->bmv", x_BME, word_VE, self.dtype)
        return mask_padded_vocab(logits_BMV + self.output_bias[...][None, None, :], self.vocab_size)


def mask_padded_vocab(logits_BMV: jax.Array, vocab_size: int) -> jax.Array:
    """Sets the logits of padded vocabulary entries to MASK_VALUE, so that they are never sampled."""
    return jnp.where(jnp.arange(logits_BMV.shape[-1])[None, None, :] < vocab_size, logits_BMV, MASK_VALUE)


@jax.custom_vjp
def negative_log_likelihood(logits_BMV: jax.Array, targets_BM: jax.Array) -> jax.Array:
    """Returns -log softmax(logits) of the targets, float32[B, M]. The gradient takes one pass over the logits."""
    return _nll_forward(logits_BMV, targets_BM)[0]


def _nll_forward(logits_BMV: jax.Array, targets_BM: jax.Array) -> tuple[jax.Array, tuple]:
    log_normalizer_BM = jax.nn.logsumexp(logits_BMV, axis=-1)
    nll_BM = log_normalizer_BM - target_logits(logits_BMV, targets_BM)
    return nll_BM, (logits_BMV, targets_BM, log_normalizer_BM)


def _nll_backward(residuals: tuple, d_BM: jax.Array) -> tuple[jax.Array, None]:
    logits_BMV, targets_BM, log_normalizer_BM = residuals
    probabilities_BMV = jnp.exp(logits_BMV - log_normalizer_BM[..., None])
    target_BMV = targets_BM[..., None] == jnp.arange(logits_BMV.shape[-1])[None, None]
    return (probabilities_BMV - target_BMV) * d_BM[..., None], None


negative_log_likelihood.defvjp(_nll_forward, _nll_backward)


def target_logits(logits_BMV: jax.Array, targets_BM: jax.Array) -> jax.Array:
    """Returns the logits float32[B, M] of the targets int32[B, M]."""
    return jnp.take_along_axis(logits_BMV, targets_BM[..., None], axis=-1)[..., 0]
