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

from electramed_jax.model import cpu_products, random_bits

LAYER_NORM_EPSILON = 1e-12  # google-research/electra's (tf.contrib default), and Hugging Face's ELECTRA

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
        if cpu_products.suit(self.dtype):
            return cpu_products.dense(self.equation, x, self.kernel[...].reshape(self.merged))
        kernel = self.kernel[...].astype(self.dtype).reshape(self.merged)
        return jnp.einsum(self.equation, x.astype(self.dtype), kernel)

    def spread_bias(self) -> jax.Array:
        """In as many axes as the product has."""
        return self.bias[...].astype(cpu_products.activations(self.dtype)).reshape(self.bias_spread)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, with a learned scale and bias."""

    def __init__(self, size: int):
        self.scale = nnx.Param(jnp.ones((size,), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((size,), jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.scale[...], self.bias[...])


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the last axis, then scaled and shifted; float32 inside, `x.dtype` out."""
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
    variance = jnp.mean(centred * centred, axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
    last = (1,) * (x.ndim - 1) + (-1,)
    return (normal * scale.reshape(last) + bias.reshape(last)).astype(x.dtype)


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact form, x·Φ(x), as in ELECTRA; float32 inside, `x.dtype` out. For gradients x alone is kept.

    jax.nn.gelu's exact form goes by erfc, whose branches cost a TPU's compiler seven times as long.
    """
    return (x.astype(jnp.float32) * _normal_cdf(x)).astype(x.dtype)


def _gelu_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    x32 = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * x32 * x32) * (2 * math.pi) ** -0.5
    return ((dy.astype(jnp.float32) * (_normal_cdf(x) + x32 * density)).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)

# Odd polynomial whose tanh is erf(x/√2): at most 2.9e-6 off, and x·Φ(x) by 0.2 % of itself where x > -3.5, which is
# less than the rounding of 16 bits. Least squares, weighted towards the largest error; past x² = 25 it is held.
ERF_AS_TANH = (0.79786971, 0.036392285, -8.7825440e-05, -3.6693687e-05, 1.4250210e-06)
HELD_FROM = 25.0


def _normal_cdf(x: jax.Array) -> jax.Array:
    """Φ(x) = (1 + erf(x/√2))/2 in float32, to the accuracy of x.dtype.

    Of 16-bit numbers by a tanh, which chips have an instruction for, where an erf would take a TPU's vector units as
    long as the matrix units take for the products around it.
    """
    x32 = x.astype(jnp.float32)
    if x.dtype.itemsize > 2:
        return 0.5 * (1.0 + jax.lax.erf(x32 * 0.5**0.5))
    square = jnp.minimum(x32 * x32, HELD_FROM)
    slope = functools.reduce(lambda total, term: total * square + term, reversed(ERF_AS_TANH))
    return 0.5 + 0.5 * jnp.tanh(x32 * slope)


def dropout(x: jax.Array, rate: float, key: jax.Array | None, *, lead: int = 1) -> jax.Array:
    """Zeroes a fraction `rate` of x and scales up the rest; without a key (evaluation) or rate, x itself.

    `lead` axes are keyed one by one (see random_bits.keep): at least the batch's.
    """
    if key is None or rate == 0.0:
        return x
    with jax.named_scope("dropout_bits"):
        keep = random_bits.keep(key, x.shape, rate, lead)
    return jnp.where(keep, x * (1.0 / (1.0 - rate)), 0.0).astype(x.dtype)


def split_key(key: jax.Array | None, n: int) -> Sequence[jax.Array | None]:
    """`n` keys from one, or `n` times None from None."""
    return [None] * n if key is None else list(jax.random.split(key, n))


def shard_rows(x: jax.Array) -> jax.Array:
    """Says that the first axis is the batch's, so the compiler keeps activations split by rows;
    no-op without a mesh.
    """
    return _laid_out(x, jax.P(("data", "fsdp"), *[None] * (x.ndim - 1)))


@jax.custom_vjp
def whole(table: jax.Array) -> jax.Array:
    """Says that every device needs all rows: a sharded table is gathered once,
    not what is looked up in it moved around. So with its gradient, but for gradients_by_width.
    """
    return _laid_out(table, jax.P())


whole.defvjp(
    lambda table: (whole(table), table.shape[1]),
    lambda width, g: (g if _columns_apart(width) else _laid_out(g, jax.P()),),
)


@jax.custom_vjp
def gradients_by_width(x_BTE: jax.Array) -> jax.Array:
    """x; its gradient goes to the devices that keep its columns of the table, before it is added up to the table's:
    tokens of a batch are fewer than rows of a table.
    """
    return x_BTE


gradients_by_width.defvjp(
    lambda x_BTE: (x_BTE, None),
    lambda _, g: (_laid_out(g, jax.P(None, None, "fsdp")) if _columns_apart(g.shape[-1]) else g,),
)


def _columns_apart(width: int) -> bool:
    """Whether each device keeps its own columns of the tables. Where rows are split over `data`, too, the compiler
    would send tokens between the slices of a pod for it.
    """
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    return sizes.get("fsdp", 1) > 1 and sizes["data"] == 1 and width % sizes["fsdp"] == 0


def _laid_out(x: jax.Array, spec: jax.sharding.PartitionSpec) -> jax.Array:
    return x if jax.sharding.get_abstract_mesh().empty else jax.lax.with_sharding_constraint(x, spec)
