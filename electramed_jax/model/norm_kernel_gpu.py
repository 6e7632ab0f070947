"""A GPU's kernels of norm_kernel.py, through Pallas and Triton.

A program of the grid takes a run of one row's tokens, one at a time; its features, filled up to a power of two, stay in
registers. In the backward pass so do the sums over tokens, until the run is through.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from electramed_jax.model import random_bits

EPSILON = 1e-12
FORWARD_RUN, BACKWARD_RUN = 2, 16  # tokens of a program
FEATURES_PER_WARP = 1024
MAX_WIDTH = 4096


def suits(row_length: int, width: int) -> bool:
    """Whether the kernels have blocks for these sizes."""
    return row_length % BACKWARD_RUN == 0 and width % 8 == 0 and width <= MAX_WIDTH


class _Runs:
    """How one device's arrays, flat in memory, are cut up."""

    def __init__(self, x: jax.Array, dropout_rate: float, run: int):
        assert x.size < 2**31, f"{x.shape} is too large for numbers to be counted in 32 bits"
        self.B, self.T, self.D = x.shape
        self.rate, self.dtype, self.run = dropout_rate, x.dtype, run
        self.programs = self.B * self.T // run
        self.lanes = pl.next_power_of_2(self.D)

    def call(self, body: Any, name: str, arrays: list[jax.Array], shapes: Any, interpret: bool) -> Any:
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.programs,),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=max(1, self.lanes // FEATURES_PER_WARP)),
            name=name,
            interpret=interpret,
        )(*(one.reshape(-1) for one in arrays))

    # What follows is called inside the kernels.

    def lane(self) -> jax.Array:
        return jnp.arange(self.lanes, dtype=jnp.int32)

    def load(self, ref: Any, start: jax.Array | int = 0) -> jax.Array:
        """float32[lanes]: the D numbers from `start` on, then zeros."""
        lane = self.lane()
        return triton.load(ref.at[start + lane], mask=lane < self.D, other=0.0).astype(jnp.float32)

    def store(self, ref: Any, start: jax.Array | int, values: jax.Array) -> None:
        lane = self.lane()
        triton.store(ref.at[start + lane], values.astype(ref.dtype), mask=lane < self.D)

    def mean(self, values: jax.Array) -> jax.Array:
        return jnp.sum(values) / self.D

    def each_token(self, words: Any, do: Any, carry: Any) -> Any:
        """do(where the token's numbers start, what dropout leaves of them, carry) for the tokens of this run."""
        first = pl.program_id(0) * self.run
        row = first // self.T
        keys = (words[row], words[row + self.B]) if self.rate else None
        lane = self.lane()

        def one(i: jax.Array, carry: Any) -> Any:
            counter = (first - row * self.T + i) * self.D + lane
            survives = random_bits.kept(counter, *keys, self.rate) if keys else None
            return do((first + i) * self.D, survives, carry)

        return jax.lax.fori_loop(0, self.run, one, carry)

    def normal(
        self, x: jax.Array, y: jax.Array, y_bias: jax.Array, survives: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Normalised x + dropout(y), and the reciprocal of its standard deviation."""
        y = y + y_bias
        if survives is not None:
            y = jnp.where(survives, y * (1.0 / (1.0 - self.rate)), 0.0)
        z = x + y
        centred = jnp.where(self.lane() < self.D, z - self.mean(z), 0.0)
        rstd = jax.lax.rsqrt(self.mean(centred * centred) + EPSILON)
        return centred * rstd, rstd


def forward(
    words: jax.Array, x: jax.Array, y: jax.Array, *features: jax.Array, dropout_rate: float, interpret: bool
) -> jax.Array:
    runs = _Runs(x, dropout_rate, FORWARD_RUN)
    shape = jax.ShapeDtypeStruct((x.size,), x.dtype)
    return runs.call(_forward_body, "norm_forward", [words, x, y, *features], shape, interpret).reshape(x.shape)


def _forward_body(runs: _Runs, words: Any, x: Any, y: Any, y_bias: Any, scale: Any, bias: Any, h: Any) -> None:
    y_bias, scale, bias = runs.load(y_bias), runs.load(scale), runs.load(bias)

    def one(start: jax.Array, survives: jax.Array | None, carry: None) -> None:
        normal, _ = runs.normal(runs.load(x, start), runs.load(y, start), y_bias, survives)
        runs.store(h, start, normal * scale + bias)

    runs.each_token(words, one, None)


def backward(
    words: jax.Array, x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array, dh: jax.Array,
    *, dropout_rate: float, interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """dx, dy, and of each run the sums over its tokens [runs, 3, D]: gradients of scale, bias and y's bias."""
    runs = _Runs(x, dropout_rate, BACKWARD_RUN)
    gradient = jax.ShapeDtypeStruct((x.size,), x.dtype)
    sums = jax.ShapeDtypeStruct((runs.programs * 3 * runs.D,), jnp.float32)
    gradients = [gradient] * (2 if dropout_rate else 1)  # without dropout it is the same for x and y
    arrays = [words, x, y, y_bias, scale, dh]
    dx, *dy, sums = runs.call(_backward_body, "norm_backward", arrays, [*gradients, sums], interpret)
    dx = dx.reshape(x.shape)
    return dx, (dy[0].reshape(x.shape) if dy else dx), sums.reshape(-1, 3, runs.D)


def _backward_body(
    runs: _Runs, words: Any, x: Any, y: Any, y_bias: Any, scale: Any, dh: Any, dx: Any, *outputs: Any
) -> None:
    y_bias, scale = runs.load(y_bias), runs.load(scale)

    def one(start: jax.Array, survives: jax.Array | None, totals: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        normal, rstd = runs.normal(runs.load(x, start), runs.load(y, start), y_bias, survives)
        dh_D = runs.load(dh, start)
        dnormal = dh_D * scale
        dz = rstd * (dnormal - runs.mean(dnormal) - normal * runs.mean(dnormal * normal))
        runs.store(dx, start, dz)
        dy = dz
        if survives is not None:
            dy = jnp.where(survives, dz * (1.0 / (1.0 - runs.rate)), 0.0)
            runs.store(outputs[0], start, dy)
        return tuple(total + of_token for total, of_token in zip(totals, (dh_D * normal, dh_D, dy), strict=True))

    program, nothing = pl.program_id(0), jnp.zeros((runs.lanes,), jnp.float32)
    for i, total in enumerate(runs.each_token(words, one, (nothing, nothing, nothing))):
        runs.store(outputs[-1], (3 * program + i) * runs.D, total)
