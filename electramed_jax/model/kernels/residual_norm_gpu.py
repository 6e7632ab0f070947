"""GPU kernels of residual_norm.py, in Pallas for Triton.

A program handles one or two tokens of a row at a time. Their features stay in registers, in pieces of a length that is
a power of two. The backward kernel also keeps its sums over tokens in registers until the program ends.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from electramed_jax.model.kernels.ptx import PtxMath
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import LAYER_NORM_EPSILON

PIECE, MAX_PIECES = 256, 16  # features of a piece: eight per thread of a warp; pieces of a token


class ProgramShape(NamedTuple):
    """Work of one program of the grid."""

    tokens: int  # per step
    steps: int
    warps: int


FORWARD, BACKWARD = ProgramShape(1, 1, 1), ProgramShape(2, 16, 4)


def supports(row_length: int, width: int) -> bool:
    """Returns whether the kernels support these sizes."""
    divisible = row_length % (BACKWARD.tokens * BACKWARD.steps) == 0 and width % 8 == 0
    return divisible and width // _piece(width) <= MAX_PIECES


def _piece(width: int) -> int:
    """Returns the largest power of two that divides the width, at most PIECE."""
    return min(PIECE, width & -width)


class _Tokens:
    """Layout of one device's arrays, which the kernels read as flat memory."""

    def __init__(self, x: jax.Array, dropout_rate: float, program: ProgramShape, interpret: bool):
        assert x.size < 2**31, f"{x.shape} has 2^31 elements or more: its indices do not fit 32 bits"
        self.B, self.T, self.D = x.shape
        self.piece = _piece(self.D)
        self.pieces = range(self.D // self.piece)
        self.program, self.num_programs = program, self.B * self.T // (program.tokens * program.steps)
        self.rate, self.interpret, self.ptx = dropout_rate, interpret, PtxMath(interpret)

    def call(self, body: Callable[..., None], name: str, arrays: Sequence[jax.Array], shapes: Any) -> Any:
        """Runs a kernel on flattened arrays."""
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.num_programs,),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=self.program.warps),
            name=name,
            interpret=self.interpret,
        )(*(array.reshape(-1) for array in arrays))

    # The methods below are called inside the kernels. Arrays are lists of pieces, [tokens, piece] each.

    def loop(self, body: Callable[..., Any], carry: Any) -> Any:
        """Runs `carry = body(row, token indices, carry)` over the steps of the program."""
        tokens, steps, _ = self.program
        first = pl.program_id(0) * (steps * tokens)
        row, lane = first // self.T, jnp.arange(tokens, dtype=jnp.int32)
        return jax.lax.fori_loop(0, steps, lambda i, carry: body(row, first + i * tokens + lane, carry), carry)

    def features(self, piece: int) -> jax.Array:
        """Returns the feature indices of a piece, int32[tokens, piece], the same for each token."""
        index_1P = piece * self.piece + jnp.arange(self.piece, dtype=jnp.int32)[None, :]
        return jnp.broadcast_to(index_1P, (self.program.tokens, self.piece))

    def indices(self, token: jax.Array) -> list[jax.Array]:
        """Returns the flat indices of the tokens' features."""
        return [token[:, None] * self.D + self.features(piece) for piece in self.pieces]

    def load(self, ref: Any, indices: list[jax.Array]) -> list[jax.Array]:
        """Reads pieces as float32."""
        return [triton.load(ref.at[index]).astype(jnp.float32) for index in indices]

    def store(self, ref: Any, indices: list[jax.Array], values: list[jax.Array]) -> None:
        """Writes pieces in the dtype of the array."""
        for index, value in zip(indices, values, strict=True):
            triton.store(ref.at[index], value.astype(ref.dtype))

    def load_features(self, ref: Any) -> list[jax.Array]:
        """Reads a vector with one element per feature, as float32."""
        return self.load(ref, [self.features(piece) for piece in self.pieces])

    def mean(self, pieces: list[jax.Array]) -> jax.Array:
        """Returns the mean over the features of each token, [tokens, 1]."""
        return (jnp.sum(sum(pieces[1:], start=pieces[0]), axis=1) * (1.0 / self.D))[:, None]

    def dropout_factors(self, seeds: Any, row: jax.Array, token: jax.Array) -> list[jax.Array | float]:
        """Returns the factor of each element: 0 if dropped, else 1 / (1 - rate)."""
        if not self.rate:
            return [1.0] * len(self.pieces)
        row_seeds, index_in_row = (seeds[row], seeds[row + self.B]), (token - row * self.T)[:, None] * self.D
        keep = [dropout_bits.keep_mask(index_in_row + self.features(i), *row_seeds, self.rate) for i in self.pieces]
        return [jnp.where(mask, 1.0 / (1.0 - self.rate), 0.0) for mask in keep]

    def residual_sum(
        self, x: Any, y: Any, y_bias: Any, indices: list[jax.Array], factors: list[jax.Array | float]
    ) -> list[jax.Array]:
        """Returns x + dropout(y + y_bias)."""
        parts = zip(self.load(x, indices), self.load(y, indices), self.load_features(y_bias), factors, strict=True)
        return [self.ptx.multiply_add(y + y_bias, factor, x) for x, y, y_bias, factor in parts]


def forward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, *features: jax.Array, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the result; per token the mean and the reciprocal of the standard deviation."""
    tokens = _Tokens(x, dropout_rate, FORWARD, interpret)
    statistic = jax.ShapeDtypeStruct((tokens.B * tokens.T,), jnp.float32)
    shapes = (jax.ShapeDtypeStruct((x.size,), x.dtype), statistic, statistic)
    h, *statistics = tokens.call(_forward_body, "norm_forward", [seeds, x, y, *features], shapes)
    return h.reshape(x.shape), tuple(statistic.reshape(x.shape[:2]) for statistic in statistics)


def _forward_body(
    tokens: _Tokens, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, bias: Any, h: Any, means: Any, rstds: Any
) -> None:
    def step(row: jax.Array, token: jax.Array, _: None) -> None:
        indices, multiply_add = tokens.indices(token), tokens.ptx.multiply_add
        z = tokens.residual_sum(x, y, y_bias, indices, tokens.dropout_factors(seeds, row, token))
        mean = tokens.mean(z)
        centered = [piece - mean for piece in z]
        rstd = jax.lax.rsqrt(tokens.mean([piece * piece for piece in centered]) + LAYER_NORM_EPSILON)
        parts = zip(centered, tokens.load_features(scale), tokens.load_features(bias), strict=True)
        tokens.store(h, indices, [multiply_add(centered * rstd, scale, bias) for centered, scale, bias in parts])
        triton.store(means.at[token], mean[:, 0])
        triton.store(rstds.at[token], rstd[:, 0])

    tokens.loop(step, None)


def backward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array,
    means: jax.Array, rstds: jax.Array, dh: jax.Array, *, dropout_rate: float, interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """Returns dx, dy, and per program the gradients of scale, bias and y_bias, float32[programs, 3, D]."""
    tokens = _Tokens(x, dropout_rate, BACKWARD, interpret)
    gradient = jax.ShapeDtypeStruct((x.size,), x.dtype)
    sums = jax.ShapeDtypeStruct((tokens.num_programs * 3 * tokens.D,), jnp.float32)
    gradients = [gradient] * (2 if dropout_rate else 1)  # without dropout dx and dy are equal
    arrays = [seeds, x, y, y_bias, scale, means, rstds, dh]
    dx, *dy, sums = tokens.call(_backward_body, "norm_backward", arrays, [*gradients, sums])
    dx = dx.reshape(x.shape)
    return dx, (dy[0].reshape(x.shape) if dy else dx), sums.reshape(-1, 3, tokens.D)


def _backward_body(
    tokens: _Tokens, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, means: Any, rstds: Any, dh: Any,
    dx: Any, *outputs: Any,
) -> None:  # fmt: skip
    multiply_add = tokens.ptx.multiply_add

    def step(row: jax.Array, token: jax.Array, totals: tuple[list[jax.Array], ...]) -> tuple[list[jax.Array], ...]:
        indices, factors = tokens.indices(token), tokens.dropout_factors(seeds, row, token)
        mean, rstd = triton.load(means.at[token])[:, None], triton.load(rstds.at[token])[:, None]
        z, dhs = tokens.residual_sum(x, y, y_bias, indices, factors), tokens.load(dh, indices)
        normalized = [multiply_add(piece, rstd, -mean * rstd) for piece in z]
        dnormalized = [dh * scale for dh, scale in zip(dhs, tokens.load_features(scale), strict=True)]
        projection = tokens.mean([dn * n for dn, n in zip(dnormalized, normalized, strict=True)]) * -rstd
        shift = tokens.mean(dnormalized) * -rstd
        dz = [
            multiply_add(dn, rstd, multiply_add(n, projection, shift))
            for dn, n in zip(dnormalized, normalized, strict=True)
        ]
        dy = [piece * factor for piece, factor in zip(dz, factors, strict=True)] if tokens.rate else dz
        tokens.store(dx, indices, dz)
        if tokens.rate:
            tokens.store(outputs[0], indices, dy)
        scale_total, bias_total, y_bias_total = totals
        return (
            [multiply_add(dh, n, total) for dh, n, total in zip(dhs, normalized, scale_total, strict=True)],
            [total + dh for dh, total in zip(dhs, bias_total, strict=True)],
            [total + piece for piece, total in zip(dy, y_bias_total, strict=True)],
        )

    zeros = [jnp.zeros((BACKWARD.tokens, tokens.piece), jnp.float32) for _ in tokens.pieces]
    for i, total in enumerate(tokens.loop(step, (zeros, zeros, zeros))):
        for piece, per_token in zip(tokens.pieces, total, strict=True):
            start = (3 * pl.program_id(0) + i) * tokens.D + piece * tokens.piece
            index = start + jnp.arange(tokens.piece, dtype=jnp.int32)
            triton.store(outputs[-1].at[index], jnp.sum(per_token, axis=0))
