"""GELU of a product and its bias as GPU kernels, in Pallas for Triton.

With the chip's own instructions the kernels are as fast as the memory. XLA's form has twice as many instructions and is
slower. The backward kernel sums the gradient of the bias.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from electramed_jax.model.kernels.platform import shard_over_tensor
from electramed_jax.model.kernels.ptx import PtxMath
from electramed_jax.model.ops.numerics import ERF_AS_TANH, ERF_MAX_SQUARE

COLUMNS = 256
FORWARD_ROWS, FORWARD_WARPS = 8, 8  # tokens and warps of a program
BACKWARD_ROWS, BACKWARD_WARPS, BACKWARD_RUN = 8, 4, 64  # tokens of a step, warps and tokens of a program
PRODUCT, BIAS, SUMS = jax.P(None, None, "tensor"), jax.P("tensor"), jax.P(None, "tensor")


def supports(row_length: int, width: int, dtype: jnp.dtype) -> bool:
    """Returns whether the kernels support these sizes of one device's shard, and the dtype: 16 bits."""
    return row_length % BACKWARD_RUN == 0 and width % COLUMNS == 0 and dtype.itemsize == 2


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def biased_gelu(x_BTF: jax.Array, bias_F: jax.Array, interpret: bool = False) -> jax.Array:
    """Computes layers.biased_gelu."""
    return _forward(x_BTF, bias_F, interpret)[0]


def _forward(x: jax.Array, bias: jax.Array, interpret: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    call = functools.partial(_call_forward, interpret=interpret)
    return shard_over_tensor(call, (PRODUCT, BIAS), PRODUCT)(x, bias), (x, bias)


def _backward(interpret: bool, residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    call = functools.partial(_call_backward, interpret=interpret)
    dx, sums = shard_over_tensor(call, (PRODUCT, BIAS, PRODUCT), (PRODUCT, SUMS))(*residuals, dy)
    return dx, jnp.sum(sums, axis=0).astype(residuals[1].dtype)


biased_gelu.defvjp(_forward, _backward)


# (1 + tanh p)/2 is 1/(1 + 2^q) with q = -2·log2(e)·p, and the normal density is 2^(-u²/2·log2(e) - log2(2π)/2).
TERMS = [-2 * math.log2(math.e) * term for term in reversed(ERF_AS_TANH)]
HALF_LOG2E, HALF_LOG2_2PI = 0.5 * math.log2(math.e), 0.5 * math.log2(2 * math.pi)


def _normal_cdf(u: jax.Array, square: jax.Array, ptx: PtxMath) -> jax.Array:
    """Returns Φ(u), by the approximation that layers.gelu_and_grad uses for 16-bit numbers."""
    square = jnp.minimum(square, ERF_MAX_SQUARE)
    q_over_u = ptx.multiply_add(square, *TERMS[:2])
    for term in TERMS[2:]:
        q_over_u = ptx.multiply_add(square, q_over_u, term)
    return ptx.reciprocal(1.0 + ptx.exp2(u, q_over_u, 0.0))


def _biased(x: jax.Array, bias_1C: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) + bias_1C


def _call_forward(x: jax.Array, bias: jax.Array, *, interpret: bool) -> jax.Array:
    tokens, width = x.shape[0] * x.shape[1], x.shape[2]
    ptx = PtxMath(interpret)

    def body(x: Any, bias: Any, y: Any) -> None:
        rows, columns = pl.ds(pl.program_id(0) * FORWARD_ROWS, FORWARD_ROWS), pl.ds(pl.program_id(1) * COLUMNS, COLUMNS)
        u = _biased(x[rows, columns], bias[columns][None])
        y[rows, columns] = (u * _normal_cdf(u, u * u, ptx)).astype(y.dtype)

    return pl.pallas_call(
        body,
        grid=(tokens // FORWARD_ROWS, width // COLUMNS),
        out_shape=jax.ShapeDtypeStruct((tokens, width), x.dtype),
        compiler_params=triton.CompilerParams(num_warps=FORWARD_WARPS, num_stages=1),
        name="gelu_forward",
        interpret=interpret,
    )(x.reshape(tokens, width), bias.astype(jnp.float32)).reshape(x.shape)


def _call_backward(x: jax.Array, bias: jax.Array, dy: jax.Array, *, interpret: bool) -> tuple[jax.Array, jax.Array]:
    """Returns dx, and its sums over each run of tokens, float32[runs, F]."""
    tokens, width = x.shape[0] * x.shape[1], x.shape[2]
    runs, ptx = tokens // BACKWARD_RUN, PtxMath(interpret)

    def body(x: Any, bias: Any, dy: Any, dx: Any, sums: Any) -> None:
        run, columns = pl.program_id(0), pl.ds(pl.program_id(1) * COLUMNS, COLUMNS)
        bias_1C = bias[columns][None]

        def step(i: jax.Array, total: jax.Array) -> jax.Array:
            rows = pl.ds(run * BACKWARD_RUN + i * BACKWARD_ROWS, BACKWARD_ROWS)
            u = _biased(x[rows, columns], bias_1C)
            square = u * u
            gelu_grad = ptx.multiply_add(u, ptx.exp2(square, -HALF_LOG2E, -HALF_LOG2_2PI), _normal_cdf(u, square, ptx))
            gradient = dy[rows, columns].astype(jnp.float32) * gelu_grad
            dx[rows, columns] = gradient.astype(dx.dtype)
            return total + gradient

        zeros = jnp.zeros((BACKWARD_ROWS, COLUMNS), jnp.float32)
        total = jax.lax.fori_loop(0, BACKWARD_RUN // BACKWARD_ROWS, step, zeros)
        sums[run, columns] = jnp.sum(total, axis=0)

    dx, sums = pl.pallas_call(
        body,
        grid=(runs, width // COLUMNS),
        out_shape=(
            jax.ShapeDtypeStruct((tokens, width), x.dtype),
            jax.ShapeDtypeStruct((runs, width), jnp.float32),
        ),
        compiler_params=triton.CompilerParams(num_warps=BACKWARD_WARPS, num_stages=1),
        name="gelu_backward",
        interpret=interpret,
    )(x.reshape(tokens, width), bias.astype(jnp.float32), dy.reshape(tokens, width))
    return dx.reshape(x.shape), sums
