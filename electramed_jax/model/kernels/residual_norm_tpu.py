"""TPU kernels of residual_norm.py. libtpu compiles them for v4 to tpu7x; they have not run on a chip yet.

A block is a run of tokens of one row with all their features.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from electramed_jax.model.kernels.platform import LANES
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import LAYER_NORM_EPSILON

BLOCK_BYTES = 2**20  # of one array; about five arrays, double-buffered, fit into the fast memory of every generation


def supports(row_length: int, width: int) -> bool:
    """Returns whether the kernels support these sizes."""
    return row_length % 16 == 0 and width % LANES == 0


class _Blocks:
    """Block layout of one device's arrays: runs of tokens with all features."""

    def __init__(self, x: jax.Array, dropout_rate: float):
        self.B, self.T, self.D = x.shape
        self.rate, self.dtype = dropout_rate, x.dtype
        runs = (n for n in range(self.T, 0, -16) if self.T % n == 0)
        self.tokens = next((n for n in runs if n * self.D * x.dtype.itemsize <= BLOCK_BYTES), 16)
        self.grid = (self.B, self.T // self.tokens)

    def call(
        self, body: Any, name: str, inputs: list[str], outputs: list[str], shapes: list[Any], interpret: bool
    ) -> Any:
        """Returns the kernel as a function of arrays whose kinds are `inputs`."""
        specs = {
            "seeds": pl.BlockSpec(memory_space=pltpu.SMEM),
            "tokens": pl.BlockSpec((1, self.tokens, self.D), lambda b, t: (b, t, 0)),
            "features": pl.BlockSpec((1, self.D), lambda b, t: (0, 0)),
            "sums": pl.BlockSpec((1, 1, 8, self.D), lambda b, t: (b, t, 0, 0)),
        }
        return pl.pallas_call(
            functools.partial(body, self),
            grid=self.grid,
            in_specs=[specs[kind] for kind in inputs],
            out_specs=[specs[kind] for kind in outputs],
            out_shape=shapes,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            name=name,
            metadata={"turns": str(self.grid[0] * self.grid[1])},  # size of the grid, for aot/cost_model.py
            interpret=interpret,
        )

    # The methods below are called inside the kernels.

    def keep_mask(self, seeds: Any) -> jax.Array:
        """Returns the dropout mask of the block, bool[tokens, D]; True is kept."""
        row, first = pl.program_id(0), pl.program_id(1) * self.tokens
        token, feature = (jax.lax.broadcasted_iota(jnp.int32, (self.tokens, self.D), axis) for axis in (0, 1))
        counter = (token + first) * self.D + feature
        return dropout_bits.keep_mask(counter, seeds[0, row], seeds[1, row], self.rate)

    def normalize(self, x: Any, y: Any, y_bias: Any, keep: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Returns the normalized x + dropout(y + y_bias), and the reciprocal of its standard deviation."""
        y = y[0].astype(jnp.float32) + y_bias[...]
        if keep is not None:
            y = jnp.where(keep, y * (1.0 / (1.0 - self.rate)), 0.0)
        z = x[0].astype(jnp.float32) + y
        centered = z - jnp.mean(z, axis=-1, keepdims=True)
        rstd = jax.lax.rsqrt(jnp.mean(centered * centered, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
        return centered * rstd, rstd


def forward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, *features: jax.Array, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, tuple[()]]:
    """Returns the result, and no statistics: the backward kernel recomputes them at no cost."""
    blocks = _Blocks(x, dropout_rate)
    inputs = ["seeds", "tokens", "tokens", "features", "features", "features"]
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    call = blocks.call(_forward_body, "norm_forward", inputs, ["tokens"], [shape], interpret)
    return call(seeds, x, y, *(vector[None] for vector in features))[0], ()


def _forward_body(blocks: _Blocks, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, bias: Any, h: Any) -> None:
    normalized, _ = blocks.normalize(x, y, y_bias, blocks.keep_mask(seeds) if blocks.rate else None)
    h[0] = (normalized * scale[...] + bias[...]).astype(blocks.dtype)


def backward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, dh: jax.Array,
    *, dropout_rate: float, interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Returns dx, dy, and per block the gradients of scale, bias and y_bias, float32[blocks, 3, D]."""
    blocks = _Blocks(x, dropout_rate)
    inputs = ["seeds", "tokens", "tokens", "features", "features", "tokens"]
    gradient = jax.ShapeDtypeStruct(x.shape, x.dtype)
    sums = jax.ShapeDtypeStruct((*blocks.grid, 8, blocks.D), jnp.float32)
    gradients = 2 if dropout_rate else 1  # without dropout dx and dy are equal
    outputs, shapes = ["tokens"] * gradients + ["sums"], [gradient] * gradients + [sums]
    call = blocks.call(_backward_body, "norm_backward", inputs, outputs, shapes, interpret)
    dx, *dy, sums = call(seeds, x, y, y_bias[None], scale[None], dh)
    return dx, (dy[0] if dy else dx), sums.reshape(-1, 8, blocks.D)[:, :3]


def _backward_body(
    blocks: _Blocks, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, dh: Any, dx: Any, *outputs: Any
) -> None:
    keep = blocks.keep_mask(seeds) if blocks.rate else None
    normalized, rstd = blocks.normalize(x, y, y_bias, keep)
    dh = dh[0].astype(jnp.float32)
    dnormalized = dh * scale[...]
    projection = jnp.mean(dnormalized * normalized, axis=-1, keepdims=True)
    dz = rstd * (dnormalized - jnp.mean(dnormalized, axis=-1, keepdims=True) - normalized * projection)
    dx[0] = dz.astype(blocks.dtype)
    dy, sums = dz, outputs[-1]
    if keep is not None:
        dy = jnp.where(keep, dz * (1.0 / (1.0 - blocks.rate)), 0.0)
        outputs[0][0] = dy.astype(blocks.dtype)
    token_sums = [jnp.sum(x, axis=0, keepdims=True) for x in (dh * normalized, dh, dy)]
    sums[0, 0] = jnp.concatenate([*token_sums, jnp.zeros((5, blocks.D), jnp.float32)])
