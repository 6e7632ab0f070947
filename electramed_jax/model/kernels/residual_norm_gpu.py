"""A GPU's kernels of norm_kernel.py, through Pallas and Triton.

A program of the grid takes one or two tokens of a row at a time; their features stay in registers, as pieces of a power
of two. In the backward pass so do the sums over tokens, until the program is through.
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

PIECE, MAX_PIECES = 256, 16  # features: eight for each thread of a warp


class ProgramShape(NamedTuple):
    """What one program of the grid does."""

    tokens: int  # at a time
    steps: int  # of so many tokens
    warps: int


FORWARD, BACKWARD = ProgramShape(1, 1, 1), ProgramShape(2, 16, 4)


def supports(row_length: int, width: int) -> bool:
    """Whether the kernels have blocks for these sizes."""
    whole = row_length % (BACKWARD.tokens * BACKWARD.steps) == 0 and width % 8 == 0
    return whole and width // _piece(width) <= MAX_PIECES


def _piece(width: int) -> int:
    """The largest power of two that divides the width, PIECE at most."""
    return min(PIECE, width & -width)


class _Tokens:
    """How one device's arrays, flat in memory, are cut up."""

    def __init__(self, x: jax.Array, dropout_rate: float, program: ProgramShape, interpret: bool):
        assert x.size < 2**31, f"{x.shape} is too large for numbers to be counted in 32 bits"
        self.B, self.T, self.D = x.shape
        self.piece = _piece(self.D)
        self.pieces = range(self.D // self.piece)
        self.program, self.count = program, self.B * self.T // (program.tokens * program.steps)
        self.rate, self.interpret, self.do = dropout_rate, interpret, PtxMath(interpret)

    def call(self, body: Callable[..., None], name: str, arrays: Sequence[jax.Array], shapes: Any) -> Any:
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.count,),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=self.program.warps),
            name=name,
            interpret=self.interpret,
        )(*(one.reshape(-1) for one in arrays))

    # What follows is called inside the kernels. Arrays are lists of pieces, [tokens, piece] each.

    def each_step(self, do: Callable[..., Any], carry: Any) -> Any:
        """do(their row, numbers of the tokens, carry), step after step."""
        tokens, steps, _ = self.program
        first = pl.program_id(0) * (steps * tokens)
        row, lane = first // self.T, jnp.arange(tokens, dtype=jnp.int32)
        return jax.lax.fori_loop(0, steps, lambda i, carry: do(row, first + i * tokens + lane, carry), carry)

    def features(self, piece: int) -> jax.Array:
        """int32[tokens, piece]: their numbers, the same for each token."""
        one_1P = piece * self.piece + jnp.arange(self.piece, dtype=jnp.int32)[None, :]
        return jnp.broadcast_to(one_1P, (self.program.tokens, self.piece))

    def places(self, token: jax.Array) -> list[jax.Array]:
        return [token[:, None] * self.D + self.features(piece) for piece in self.pieces]

    def load(self, ref: Any, places: list[jax.Array]) -> list[jax.Array]:
        return [triton.load(ref.at[one]).astype(jnp.float32) for one in places]

    def store(self, ref: Any, places: list[jax.Array], values: list[jax.Array]) -> None:
        for one, value in zip(places, values, strict=True):
            triton.store(ref.at[one], value.astype(ref.dtype))

    def of_features(self, ref: Any) -> list[jax.Array]:
        """What there is one of for each feature."""
        return self.load(ref, [self.features(piece) for piece in self.pieces])

    def mean(self, pieces: list[jax.Array]) -> jax.Array:
        """[tokens, 1]"""
        return (jnp.sum(sum(pieces[1:], start=pieces[0]), axis=1) * (1.0 / self.D))[:, None]

    def factors(self, seeds: Any, row: jax.Array, token: jax.Array) -> list[jax.Array | float]:
        """What dropout multiplies each number by: 0, or what makes up for that."""
        if not self.rate:
            return [1.0] * len(self.pieces)
        keys, place_in_row = (seeds[row], seeds[row + self.B]), (token - row * self.T)[:, None] * self.D
        kept = [dropout_bits.keep_mask(place_in_row + self.features(i), *keys, self.rate) for i in self.pieces]
        return [jnp.where(one, 1.0 / (1.0 - self.rate), 0.0) for one in kept]

    def added(
        self, x: Any, y: Any, y_bias: Any, places: list[jax.Array], factors: list[jax.Array | float]
    ) -> list[jax.Array]:
        """x + dropout(y + its bias)."""
        parts = zip(self.load(x, places), self.load(y, places), self.of_features(y_bias), factors, strict=True)
        return [self.do.multiply_add(y + y_bias, factor, x) for x, y, y_bias, factor in parts]


def forward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, *features: jax.Array, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The result; of each token the mean and the reciprocal of the standard deviation."""
    tokens = _Tokens(x, dropout_rate, FORWARD, interpret)
    statistic = jax.ShapeDtypeStruct((tokens.B * tokens.T,), jnp.float32)
    shapes = (jax.ShapeDtypeStruct((x.size,), x.dtype), statistic, statistic)
    h, *statistics = tokens.call(_forward_body, "norm_forward", [seeds, x, y, *features], shapes)
    return h.reshape(x.shape), tuple(one.reshape(x.shape[:2]) for one in statistics)


def _forward_body(
    tokens: _Tokens, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, bias: Any, h: Any, means: Any, rstds: Any
) -> None:
    def one(row: jax.Array, token: jax.Array, carry: None) -> None:
        places, multiply_add = tokens.places(token), tokens.do.multiply_add
        z = tokens.added(x, y, y_bias, places, tokens.factors(seeds, row, token))
        mean = tokens.mean(z)
        centred = [piece - mean for piece in z]
        rstd = jax.lax.rsqrt(tokens.mean([piece * piece for piece in centred]) + LAYER_NORM_EPSILON)
        parts = zip(centred, tokens.of_features(scale), tokens.of_features(bias), strict=True)
        tokens.store(h, places, [multiply_add(centred * rstd, scale, bias) for centred, scale, bias in parts])
        triton.store(means.at[token], mean[:, 0])
        triton.store(rstds.at[token], rstd[:, 0])

    tokens.each_step(one, None)


def backward(
    seeds: jax.Array, x: jax.Array, y: jax.Array, y_bias: jax.Array, scale: jax.Array,
    means: jax.Array, rstds: jax.Array, dh: jax.Array, *, dropout_rate: float, interpret: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """dx, dy, and of each program the sums over its tokens [programs, 3, D]: gradients of scale, bias and y's bias."""
    tokens = _Tokens(x, dropout_rate, BACKWARD, interpret)
    gradient = jax.ShapeDtypeStruct((x.size,), x.dtype)
    sums = jax.ShapeDtypeStruct((tokens.count * 3 * tokens.D,), jnp.float32)
    gradients = [gradient] * (2 if dropout_rate else 1)  # without dropout it is the same for x and y
    arrays = [seeds, x, y, y_bias, scale, means, rstds, dh]
    dx, *dy, sums = tokens.call(_backward_body, "norm_backward", arrays, [*gradients, sums])
    dx = dx.reshape(x.shape)
    return dx, (dy[0].reshape(x.shape) if dy else dx), sums.reshape(-1, 3, tokens.D)


def _backward_body(
    tokens: _Tokens, seeds: Any, x: Any, y: Any, y_bias: Any, scale: Any, means: Any, rstds: Any, dh: Any,
    dx: Any, *outputs: Any,
) -> None:  # fmt: skip
    multiply_add = tokens.do.multiply_add

    def one(row: jax.Array, token: jax.Array, totals: tuple[list[jax.Array], ...]) -> tuple[list[jax.Array], ...]:
        places, factors = tokens.places(token), tokens.factors(seeds, row, token)
        mean, rstd = triton.load(means.at[token])[:, None], triton.load(rstds.at[token])[:, None]
        z, dh_of = tokens.added(x, y, y_bias, places, factors), tokens.load(dh, places)
        normal = [multiply_add(piece, rstd, -mean * rstd) for piece in z]
        dnormal = [dh * scale for dh, scale in zip(dh_of, tokens.of_features(scale), strict=True)]
        along = tokens.mean([dn * n for dn, n in zip(dnormal, normal, strict=True)]) * -rstd
        shift = tokens.mean(dnormal) * -rstd
        dz = [multiply_add(dn, rstd, multiply_add(n, along, shift)) for dn, n in zip(dnormal, normal, strict=True)]
        dy = [piece * factor for piece, factor in zip(dz, factors, strict=True)] if tokens.rate else dz
        tokens.store(dx, places, dz)
        if tokens.rate:
            tokens.store(outputs[0], places, dy)
        scale_total, bias_total, y_bias_total = totals
        return (
            [multiply_add(dh, n, total) for dh, n, total in zip(dh_of, normal, scale_total, strict=True)],
            [total + dh for dh, total in zip(dh_of, bias_total, strict=True)],
            [total + piece for piece, total in zip(dy, y_bias_total, strict=True)],
        )

    nothing = [jnp.zeros((BACKWARD.tokens, tokens.piece), jnp.float32) for _ in tokens.pieces]
    for i, total in enumerate(tokens.each_step(one, (nothing, nothing, nothing))):
        for piece, of_tokens in zip(tokens.pieces, total, strict=True):
            start = (3 * pl.program_id(0) + i) * tokens.D + piece * tokens.piece
            place = start + jnp.arange(tokens.piece, dtype=jnp.int32)
            triton.store(outputs[-1].at[place], jnp.sum(of_tokens, axis=0))
