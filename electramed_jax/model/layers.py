"""The layers an ELECTRA encoder is made of.

Legend, for every name in `model/`: an array's suffix is its shape.
    B  rows of the batch       E  embedding size      N  attention heads
    T  tokens of a row         D  encoder width       H  size of a head
    M  masked positions        F  feed-forward width  V  padded vocabulary

Parameters are float32. Matrix products run in `dtype`; layer-norm statistics, softmax and losses in float32.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.model.kernels import residual_norm
from electramed_jax.model.ops import cpu_matmul, dropout_bits
from electramed_jax.model.ops.numerics import ERF_AS_TANH, ERF_MAX_SQUARE, LAYER_NORM_EPSILON
from electramed_jax.model.ops.remat import save_for_backward

TABLE_STDDEV = 0.02  # of embedding tables, whatever the width: a layer norm follows them

# TF1's default for tf.layers.dense, which google-research/electra leaves in place for projections and logits.
glorot_uniform = jax.nn.initializers.glorot_uniform()


def truncated_normal(stddev: float) -> jax.nn.initializers.Initializer:
    """Truncated at two standard deviations and not rescaled, as TF1's truncated_normal_initializer."""
    return jax.nn.initializers.truncated_normal(stddev)


class Dense(nnx.Module):
    """`einsum(equation, x, kernel) + bias`, computed in `dtype`.

    With `merged`, axes of the kernel that follow each other are taken as one: "dcnh" kept, merged to (D, 3, N·H),
    and "dcf" in the equation. A TPU tiles an array's last two axes, and heads are no good tile.
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
        merged: Sequence[int] | None = None,
    ):
        self.equation = equation
        self.dtype = dtype
        self.kernel = nnx.Param(initializer(rngs.params(), tuple(kernel_shape), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(tuple(bias_shape), jnp.float32))
        self.merged = tuple(merged or kernel_shape)
        _, of_kernel, of_result = re.split(",|->", equation)
        size = dict(zip(of_kernel, self.merged, strict=True))
        self.bias_spread = tuple(size.get(axis, 1) for axis in of_result)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.product(x) + self.spread_bias()

    def product(self, x: jax.Array) -> jax.Array:
        """Without the bias."""
        if cpu_matmul.use_cpu_matmul(self.dtype):
            return cpu_matmul.dense(self.equation, x, self.kernel[...].reshape(self.merged))
        kernel = self.kernel[...].astype(self.dtype).reshape(self.merged)
        return jnp.einsum(self.equation, x.astype(self.dtype), kernel)

    def spread_bias(self) -> jax.Array:
        """In as many axes as the product has."""
        return self.bias[...].astype(cpu_matmul.activation_dtype(self.dtype)).reshape(self.bias_spread)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, with a learned scale and bias."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((size,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.scale[...], self.bias[...])


@jax.custom_vjp
def layer_norm(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the last axis, then scaled and shifted; float32 inside, `x.dtype` out.

    For gradients x and two numbers a token are kept.
    """
    return _layer_norm_forward(x, scale_D, bias_D)[0]


def _layer_norm_forward(x: jax.Array, scale_D: jax.Array, bias_D: jax.Array) -> tuple[jax.Array, tuple]:
    x32 = x.astype(jnp.float32)
    mean = jnp.mean(x32, axis=-1, keepdims=True)
    centred = x32 - mean
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    y = centred * inverse * _broadcast_last(scale_D, x) + _broadcast_last(bias_D, x)
    return y.astype(x.dtype), (x, mean, inverse, scale_D)


def _layer_norm_backward(kept: tuple, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale_D = kept
    normal, dy32 = (x.astype(jnp.float32) - mean) * inverse, dy.astype(jnp.float32)
    scaled = dy32 * _broadcast_last(scale_D, x)
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    dx = (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normal * along) * inverse
    tokens = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), jnp.sum(dy32 * normal, axis=tokens), jnp.sum(dy32, axis=tokens)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


def _broadcast_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """The vector with as many axes as x has."""
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


def gelu(x: jax.Array) -> jax.Array:
    """The exact form, x·Φ(x), as in ELECTRA; float32 inside, `x.dtype` out."""
    return biased_gelu(x, jnp.zeros((x.shape[-1],), x.dtype))


@jax.custom_vjp
def biased_gelu(x: jax.Array, bias_F: jax.Array) -> jax.Array:
    """GELU of x + bias. For gradients x alone is kept, a product that is kept anyway."""
    return gelu_and_grad(x + _broadcast_last(bias_F.astype(x.dtype), x))[0].astype(x.dtype)


def _biased_gelu_backward(kept: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, bias_F = kept
    _, slope = gelu_and_grad(x + _broadcast_last(bias_F.astype(x.dtype), x))
    dx = (dy.astype(jnp.float32) * slope).astype(x.dtype)
    return dx, _sum_over_tokens(dx).astype(bias_F.dtype)


def _sum_over_tokens(x: jax.Array) -> jax.Array:
    """float32[F]. Of 16-bit numbers as a product: a TPU's matrix units have nothing else to do meanwhile."""
    if x.dtype.itemsize > 2:
        return jnp.sum(x, axis=tuple(range(x.ndim - 1)))
    tokens = x.reshape(-1, x.shape[-1])
    return jnp.einsum("n,nf->f", jnp.ones(len(tokens), x.dtype), tokens, preferred_element_type=jnp.float32)


biased_gelu.defvjp(lambda x, bias_F: (biased_gelu(x, bias_F), (x, bias_F)), _biased_gelu_backward)


def gelu_and_grad(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """u·Φ(u) and its derivative in float32, to the accuracy of u.dtype.

    Φ = (1 + erf(u/√2))/2 of 16-bit numbers by a tanh, which chips have an instruction for, where an erf would take a
    TPU's vector units as long as the matrix units take for the products around it. (jax.nn.gelu's exact form goes by
    erfc, whose branches cost a TPU's compiler seven times as long.)
    """
    u32 = u.astype(jnp.float32)
    if u.dtype.itemsize > 2:
        cdf = 0.5 * (1.0 + jax.lax.erf(u32 * 0.5**0.5))
    else:
        square = jnp.minimum(u32 * u32, ERF_MAX_SQUARE)
        over_u = functools.reduce(lambda total, term: total * square + term, reversed(ERF_AS_TANH))
        cdf = 0.5 + 0.5 * jnp.tanh(u32 * over_u)
    density = jnp.exp(-0.5 * u32 * u32) * (2 * math.pi) ** -0.5
    return u32 * cdf, cdf + u32 * density


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def einsum_f32(equation: str, x: jax.Array, y: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """An einsum with a float32 result, of arrays multiplied in `dtype`; so are those multiplied for its gradients."""
    return _einsum_f32(equation, x.astype(dtype), y.astype(dtype))


def _einsum_f32_backward(
    equation: str, dtype: jnp.dtype, kept: tuple[jax.Array, jax.Array], dz: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y = kept
    of_x, of_y, of_z = re.split(",|->", equation)
    dz = dz.astype(dtype)
    dx, dy = (
        _einsum_f32(f"{of_z},{of_y}->{of_x}", dz, y.astype(dtype)),
        _einsum_f32(f"{of_z},{of_x}->{of_y}", dz, x.astype(dtype)),
    )
    return dx.astype(x.dtype), dy.astype(y.dtype)


def _einsum_f32(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


einsum_f32.defvjp(lambda equation, x, y, dtype: (einsum_f32(equation, x, y, dtype), (x, y)), _einsum_f32_backward)


def dropout(x: jax.Array, rate: float, seeds: jax.Array | None) -> jax.Array:
    """Zeroes a fraction `rate` of x and scales up the rest; without seeds (evaluation) or rate, x itself.

    Args:
      seeds: `dropout_seeds` for x's first axes, at least the batch's.
    """
    if seeds is None or rate == 0.0:
        return x
    with jax.named_scope("dropout_bits"):
        keep = dropout_bits.dropout_mask(seeds, x.shape, rate)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0.0).astype(x.dtype)


def split_key(key: jax.Array | None, n: int) -> Sequence[jax.Array | None]:
    """`n` keys from one, or `n` times None from None."""
    return [None] * n if key is None else list(jax.random.split(key, n))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def unstack(x: jax.Array, count: int) -> tuple[jax.Array, ...]:
    """x[0], x[1], ...; their gradients are put together at once, not padded and added up one by one."""
    return tuple(x[i] for i in range(count))


unstack.defvjp(lambda x, count: (unstack(x, count), None), lambda count, _, gradients: (jnp.stack(gradients),))


def add_and_norm(
    x_BTD: jax.Array, dense: Dense, y: jax.Array, norm: LayerNorm, rate: float, seeds_2B: jax.Array | None, kernels: str
) -> jax.Array:
    """norm(x + dropout(dense(y))), by one kernel where there is one; `kernels` is the config's."""
    product_BTD = save_for_backward(dense.product(y))
    if kernels == "auto" and residual_norm.supports(*x_BTD.shape[1:]):
        if seeds_2B is None or rate == 0.0:
            rate, seeds_2B = 0.0, jnp.zeros((2, len(x_BTD)), jnp.int32)
        biases = (dense.bias[...], norm.scale[...], norm.bias[...])
        return residual_norm.residual_norm(x_BTD, product_BTD, *biases, seeds_2B, rate)
    return norm(x_BTD + dropout(product_BTD + dense.spread_bias(), rate, seeds_2B))
