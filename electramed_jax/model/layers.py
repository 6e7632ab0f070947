"""Layers of an ELECTRA encoder: dense, layer norm, GELU, dropout.

Legend of shape suffixes, for all of `model/`: the suffix of an array's name is its shape.
    B  rows of the batch       E  embedding size      N  attention heads
    T  tokens of a row         D  encoder width       H  size of a head
    M  masked positions        F  feed-forward width  V  padded vocabulary
    S  keys, where T are queries
A digit is a size: `seeds_2BN` has the shape [2, B, N]. `F` in attention is heads times head size.

Parameters are float32. Matrix products run in `dtype`; layer-norm statistics, softmax and losses in float32.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.model.kernels import residual_norm
from electramed_jax.model.ops import cpu_matmul, dropout_bits
from electramed_jax.model.ops.numerics import ERF_AS_TANH, ERF_MAX_SQUARE, LAYER_NORM_EPSILON
from electramed_jax.model.ops.remat import save_for_backward

TABLE_STDDEV = 0.02  # of embedding tables of any width, because a layer norm follows

# TF1's default for tf.layers.dense. google-research/electra uses it for projections and the discriminator's logits.
glorot_uniform = jax.nn.initializers.glorot_uniform()


def truncated_normal(stddev: float) -> jax.nn.initializers.Initializer:
    """Returns TF1's truncated_normal_initializer: truncated at two standard deviations, not rescaled."""
    return jax.nn.initializers.truncated_normal(stddev)


class Dense(nnx.Module):
    """Computes `einsum(equation, x, kernel) + bias` in `dtype`.

    Attributes:
      einsum_shape: shape of the kernel in the equation, with adjacent axes of the parameter merged: stored "dcnh",
        multiplied as (D, 3, N·H), "dcf" in the equation. A TPU tiles the last two axes of an array, and heads times
        head size makes a bad tile.
    """

    def __init__(
        self,
        equation: str,
        kernel_shape: Sequence[int],
        bias_shape: Sequence[int],
        *,
        rngs: nnx.Rngs,
        dtype: jnp.dtype,
        initializer: jax.nn.initializers.Initializer,
        einsum_shape: Sequence[int] | None = None,
    ):
        self.equation = equation
        self.dtype = dtype
        self.kernel = nnx.Param(initializer(rngs.params(), tuple(kernel_shape), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(tuple(bias_shape), jnp.float32))
        self.einsum_shape = tuple(einsum_shape or kernel_shape)
        _, kernel_axes, result_axes = re.split(",|->", equation)
        size = dict(zip(kernel_axes, self.einsum_shape, strict=True))
        self.bias_broadcast_shape = tuple(size.get(axis, 1) for axis in result_axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the product with the bias added."""
        return self.matmul(x) + self.broadcast_bias()

    def matmul(self, x: jax.Array) -> jax.Array:
        """Returns the product without the bias."""
        if cpu_matmul.use_cpu_matmul(self.dtype):
            return cpu_matmul.dense(self.equation, x, self.kernel[...].reshape(self.einsum_shape))
        kernel = self.kernel[...].astype(self.dtype).reshape(self.einsum_shape)
        return jnp.einsum(self.equation, x.astype(self.dtype), kernel)

    def broadcast_bias(self) -> jax.Array:
        """Returns the bias with the number of axes of the product."""
        return self.bias[...].astype(cpu_matmul.activation_dtype(self.dtype)).reshape(self.bias_broadcast_shape)


class LayerNorm(nnx.Module):
    """Layer normalization over the last axis, with a learned scale and bias."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((size,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the normalized array, in the dtype of x."""
        return layer_norm(x, self.scale[...], self.bias[...])


@jax.custom_vjp
def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> jax.Array:
    """Normalizes the last axis to zero mean and unit variance, then scales and shifts it.

    Computes in float32 and returns `x.dtype`. The backward pass needs x and two numbers per token.
    """
    return _layer_norm_forward(x, scale_D, bias_D)[0]


def _layer_norm_forward(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> tuple[jax.Array, tuple]:
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centered = x32 - mean
    inverse = jax.lax.rsqrt(jnp.mean(centered * centered, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    y = centered * inverse * _broadcast_last(scale_D, x) + _broadcast_last(bias_D, x)
    return y.astype(x.dtype), (x, mean, inverse, scale_D)


def _layer_norm_backward(residuals: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale_D = residuals
    normalized, dy32 = (x.astype(jnp.float32) - mean) * inverse, dy.astype(jnp.float32)
    scaled = dy32 * _broadcast_last(scale_D, x)
    projection = jnp.mean(scaled * normalized, axis=-1, keepdims=True)
    dx = (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normalized * projection) * inverse
    tokens = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), jnp.sum(dy32 * normalized, axis=tokens), jnp.sum(dy32, axis=tokens)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _broadcast_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Returns the vector with the number of axes of x, its values along the last one."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def gelu(x: jax.Array) -> jax.Array:
    """Returns the exact GELU, x·Φ(x), as in ELECTRA. Computes in float32 and returns `x.dtype`."""
    return biased_gelu(x, jnp.zeros((x.shape[-1],), x.dtype))


@jax.custom_vjp
def biased_gelu(x: jax.Array, bias_F: jax.Array) -> jax.Array:
    """Returns the GELU of x + bias. The backward pass needs only x, a matrix product that is saved anyway."""
    return gelu_and_grad(x + _broadcast_last(bias_F.astype(x.dtype), x))[0].astype(x.dtype)


def _biased_gelu_backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, bias_F = residuals
    _, gradient = gelu_and_grad(x + _broadcast_last(bias_F.astype(x.dtype), x))
    dx = (dy.astype(jnp.float32) * gradient).astype(x.dtype)
    return dx, _sum_over_tokens(dx).astype(bias_F.dtype)


def _sum_over_tokens(x: jax.Array) -> jax.Array:
    """Returns float32[F]. Sums 16-bit numbers by a matrix product: the matrix units of a TPU are idle here."""
    if x.dtype.itemsize > 2:
        return jnp.sum(x, axis=tuple(range(x.ndim - 1)))
    tokens = x.reshape(-1, x.shape[-1])
    return jnp.einsum("n,nf->f", jnp.ones(len(tokens), x.dtype), tokens, preferred_element_type=jnp.float32)


biased_gelu.defvjp(lambda x, bias_F: (biased_gelu(x, bias_F), (x, bias_F)), _biased_gelu_backward)


def gelu_and_grad(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns u·Φ(u) and its derivative, both float32, to the accuracy of u.dtype.

    For 16-bit inputs Φ = (1 + erf(u/√2))/2 is computed by a tanh, for which chips have an instruction. An erf would
    keep the vector units of a TPU busy for as long as the matrix units take for the adjacent products. jax.nn.gelu's
    exact form uses erfc; its branches take a TPU's compiler seven times as long.
    """
    u32 = u.astype(jnp.float32)
    if u.dtype.itemsize > 2:
        cdf = 0.5 * (1.0 + jax.lax.erf(u32 * 0.5**0.5))
    else:
        square = jnp.minimum(u32 * u32, ERF_MAX_SQUARE)
        polynomial: Any = ERF_AS_TANH[-1]
        for coefficient in reversed(ERF_AS_TANH[:-1]):
            polynomial = polynomial * square + coefficient
        cdf = 0.5 + 0.5 * jnp.tanh(u32 * polynomial)
    density = jnp.exp(-0.5 * u32 * u32) * (2 * math.pi) ** -0.5
    return u32 * cdf, cdf + u32 * density


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def einsum_f32(equation: str, x: jax.Array, y: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns a float32 einsum of arrays cast to `dtype`. The backward pass multiplies in `dtype`, too."""
    return _einsum_f32(equation, x.astype(dtype), y.astype(dtype))


def _einsum_f32_backward(
    equation: str, dtype: jnp.dtype, residuals: tuple[jax.Array, jax.Array], dz: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = residuals
    x_axes, y_axes, z_axes = re.split(",|->", equation)
    dz = dz.astype(dtype)
    dx, dy = (
        _einsum_f32(f"{z_axes},{y_axes}->{x_axes}", dz, y.astype(dtype)),
        _einsum_f32(f"{z_axes},{x_axes}->{y_axes}", dz, x.astype(dtype)),
    )
    return dx.astype(x.dtype), dy.astype(y.dtype)


def _einsum_f32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


einsum_f32.defvjp(lambda equation, x, y, dtype: (einsum_f32(equation, x, y, dtype), (x, y)), _einsum_f32_backward)


def dropout(x: jax.Array, rate: float, seeds: jax.Array | None, *, paired: bool = False) -> jax.Array:
    """Zeroes a fraction `rate` of x and scales up the rest. Returns x itself without seeds (evaluation) or rate.

    Args:
      seeds: `dropout_seeds` for the leading axes of x, at least the batch's.
      paired: draw with `paired_dropout_mask`, which takes half the operations.
    """
    if seeds is None or rate == 0.0:
        return x
    with jax.named_scope("dropout_bits"):
        draw = dropout_bits.paired_dropout_mask if paired else dropout_bits.dropout_mask
        keep = draw(seeds, x.shape, rate)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0.0).astype(x.dtype)


def split_key(key: jax.Array | None, n: int) -> Sequence[jax.Array | None]:
    """Splits a key into `n` keys; None gives `n` times None."""
    return [None] * n if key is None else list(jax.random.split(key, n))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def unstack(x: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """Returns (x[0], x[1], ...). Their gradients are stacked at once, not padded and added up one by one."""
    return tuple(x[i] for i in range(count))


unstack.defvjp(lambda x, count: (unstack(x, count), None), lambda count, _, gradients: (jnp.stack(gradients),))


def add_and_norm(
    x_BTD: jax.Array,
    dense: Dense,
    y: jax.Array,
    norm: LayerNorm,
    rate: float,
    seeds_2B: jax.Array | None,
    *,
    use_kernel: bool,
) -> jax.Array:
    """Returns norm(x + dropout(dense(y))), with `use_kernel` by one kernel where it supports the sizes."""
    product_BTD = save_for_backward(dense.matmul(y))
    if use_kernel and residual_norm.supports(*x_BTD.shape[1:]):
        if seeds_2B is None or rate == 0.0:
            rate, seeds_2B = 0.0, jnp.zeros((2, len(x_BTD)), jnp.int32)
        biases = (dense.bias[...], norm.scale[...], norm.bias[...])
        return residual_norm.residual_norm(x_BTD, product_BTD, *biases, seeds_2B, rate)
    return norm(x_BTD + dropout(product_BTD + dense.broadcast_bias(), rate, seeds_2B))
