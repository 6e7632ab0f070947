"""Attention inside documents as GPU kernels, through Pallas and Triton: see attention_kernel.py.

The flash algorithm (Dao 2022, 2023): a program takes a block of queries and goes through blocks of keys with a running
softmax. In the backward pass a first kernel goes through keys for the gradients of queries, a second through queries
for those of keys and values. All go through the blocks that share a document with their own alone: of rows that hold
several documents, a part of the square; and where both blocks are of one document, nothing is masked. Queries, keys and
values are read from one array as the product left it, and so are their gradients written; those of biases are summed on
the way.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from electramed_jax.model.kernels.platform import shard_over_tensor
from electramed_jax.model.kernels.ptx import PtxMath
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import MASK_VALUE
from electramed_jax.model.ops.remat import save_for_backward

BLOCK = 64  # tokens
WARPS, STAGES = 4, 3  # of a program; of a loop: blocks that are on their way from memory
HEAD_SIZES = (16, 32, 64, 128)
LOG2E = math.log2(math.e)


def supports(row_length: int, num_heads: int, head_size: int) -> bool:
    """Whether the kernels have blocks for these sizes, of one device's part."""
    return row_length % BLOCK == 0 and head_size in HEAD_SIZES


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> jax.Array:
    """See attention_kernel.py."""
    # As one matrix, to whose columns cuBLASLt can add the bias.
    kernel_DG = kernel_D3F.reshape(len(kernel_D3F), -1)
    product_BTG = jnp.einsum("btd,dg->btg", x_BTD, kernel_DG)
    return _attend(product_BTG, bias_3F, spans(segments_BT), seeds_2BN, head_size, dropout_rate, interpret)


def spans(segments_BT: jax.Array) -> jax.Array:
    """int32[2, B, T]: where in the row each token's document begins, and where it ends."""
    T = segments_BT.shape[1]
    place_1T, differs = jnp.arange(T, dtype=jnp.int32)[None], segments_BT[:, 1:] != segments_BT[:, :-1]
    begins_BT = jnp.pad(differs, ((0, 0), (1, 0)), constant_values=True)
    ends_BT = jnp.pad(differs, ((0, 0), (0, 1)), constant_values=True)
    begin_BT = jax.lax.cummax(jnp.where(begins_BT, place_1T, 0), axis=1)
    end_BT = jax.lax.cummin(jnp.where(ends_BT, place_1T + 1, T), axis=1, reverse=True)
    return jnp.stack([begin_BT, end_BT])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    product: jax.Array, bias: jax.Array, spans: jax.Array, seeds: jax.Array, head_size: int, dropout_rate: float,
    interpret: bool,
) -> jax.Array:  # fmt: skip
    return _forward(product, bias, spans, seeds, head_size, dropout_rate, interpret)[0]


# How the kernels' arrays lie along `tensor`.
QKV, SPANS, SEEDS = jax.P(None, None, None, "tensor"), jax.P(), jax.P(None, None, "tensor")
Y, LSE = jax.P(None, None, "tensor"), jax.P(None, "tensor")


def _forward(
    product: jax.Array, bias: jax.Array, spans: jax.Array, seeds: jax.Array, head_size: int, dropout_rate: float,
    interpret: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:  # fmt: skip
    qkv = product + bias.reshape(-1).astype(product.dtype)[None, None]
    qkv = save_for_backward(qkv.reshape(*product.shape[:2], *bias.shape))
    call = functools.partial(_call_forward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    y, lse = shard_over_tensor(call, (QKV, SPANS, SEEDS), (Y, LSE))(qkv, spans, seeds)
    y, lse = save_for_backward(y), save_for_backward(lse)
    return y, (bias, qkv, spans, seeds, y, lse)


def _backward(
    head_size: int, dropout_rate: float, interpret: bool, kept: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    bias, *others = kept
    call = functools.partial(_call_backward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    dqkv, sums = shard_over_tensor(call, (QKV, SPANS, SEEDS, Y, LSE, Y), (QKV, QKV))(*others, dy)
    return dqkv.reshape(*dy.shape[:2], -1), jnp.sum(sums, axis=(0, 1)).astype(bias.dtype), None, None


_attend.defvjp(_forward, _backward)


class _Blocks:
    """How one device's arrays are cut up: a program has one block of tokens, of one head and one row."""

    def __init__(self, qkv: jax.Array, spans: jax.Array, head_size: int, rate: float, interpret: bool):
        self.B, self.T, _, self.F = qkv.shape
        self.H, self.rate, self.dtype, self.interpret = head_size, rate, qkv.dtype, interpret
        self.N, self.count = self.F // head_size, self.T // BLOCK
        self.do, self.spans, self.scale = PtxMath(interpret), spans, head_size**-0.5

    def call(
        self, body: Callable[..., None], name: str, inputs: tuple[jax.Array, ...], shapes: Any, aliases: dict[int, int]
    ) -> Any:
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.count, self.N, self.B),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
            input_output_aliases=aliases,
            name=name,
            interpret=self.interpret,
        )(self._reach(), self.spans, *inputs)

    def _reach(self) -> jax.Array:
        """int32[B, blocks, 4]: for each block, the first and the end of those that share a document with it, and the
        first and the end of those that, like it, are of that document alone."""
        begin, end = self.spans.reshape(2, self.B, -1, BLOCK)
        first, last = (..., 0), (..., -1)
        near = begin[first] // BLOCK, pl.cdiv(end[last], BLOCK)
        # Of a block with several documents the last begins after the first ends: no block is left.
        same = pl.cdiv(begin[last], BLOCK), end[first] // BLOCK
        return jnp.stack([*near, *same], axis=-1).astype(jnp.int32)

    # What follows is called inside the kernels.

    def through(self, reach: Any, b: jax.Array, block: jax.Array, do: Callable[..., Any], carry: Any) -> Any:
        """do(number of another block, whether all of it and of mine is one document, carry), one after the other."""
        first, end, same_first, same_end = (reach[b, block, i] for i in range(4))

        def one(other: jax.Array, carry: Any) -> Any:
            return do(other, (other >= same_first) & (other < same_end), carry)

        return jax.lax.fori_loop(first, end, one, carry)

    def tokens(self, block: jax.Array) -> Any:
        return pl.ds(block * BLOCK, BLOCK)

    def places(self, block: jax.Array) -> jax.Array:
        return block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)

    def inside(self, scores_MO: jax.Array, other: jax.Array, same: jax.Array, span_2M: jax.Array) -> jax.Array:
        """Scores, NEVER where the other token is in another document than mine."""
        place_1O = self.places(other)[None, :]
        begin_M, end_M = span_2M

        def masked(scores_MO: jax.Array) -> jax.Array:
            return jnp.where((place_1O >= begin_M[:, None]) & (place_1O < end_M[:, None]), scores_MO, MASK_VALUE)

        return jax.lax.cond(same, lambda scores_MO: scores_MO, masked, scores_MO)

    def probabilities(self, scores: jax.Array, lse: jax.Array) -> jax.Array:
        """exp of what is over a softmax's normaliser, whose logarithm `lse` is to base 2."""
        return self.do.exp2(scores, self.scale * LOG2E, -lse)

    def kept(self, seeds: Any, b: jax.Array, n: jax.Array, query: jax.Array, key: jax.Array) -> jax.Array:
        """bool: what dropout leaves, of queries and keys at these places of the row."""
        return dropout_bits.keep_mask(query * self.T + key, seeds[0, b, n], seeds[1, b, n], self.rate)


def _product(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a @ b, or a @ b.T, in float32."""
    over = 1 if transposed else 0
    return jax.lax.dot_general(a, b, (((1,), (over,)), ((), ())), preferred_element_type=jnp.float32)


# ---- forward ---------------------------------------------------------------------------------------------


def _call_forward(
    qkv: jax.Array, spans: jax.Array, seeds: jax.Array, *, head_size: int, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    blocks = _Blocks(qkv, spans, head_size, dropout_rate, interpret)
    y = jax.ShapeDtypeStruct((blocks.B, blocks.T, blocks.F), qkv.dtype)
    lse = jax.ShapeDtypeStruct((blocks.B, blocks.N, blocks.T), jnp.float32)
    return tuple(blocks.call(_forward_body, "attention_forward", (seeds, qkv), (y, lse), {}))


def _forward_body(blocks: _Blocks, reach: Any, spans: Any, seeds: Any, qkv: Any, y: Any, lse: Any) -> None:
    block, n, b = (pl.program_id(axis) for axis in range(3))
    queries, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_QH, span_2Q = qkv[b, queries, 0, head], (spans[0, b, queries], spans[1, b, queries])

    def one(other: jax.Array, same: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        y_QH, highest_Q, total_Q = carry
        keys = blocks.tokens(other)
        scores_QK = blocks.inside(_product(q_QH, qkv[b, keys, 1, head], True), other, same, span_2Q)
        before_Q = highest_Q
        highest_Q = jnp.maximum(before_Q, jnp.max(scores_QK, axis=1) * (blocks.scale * LOG2E))
        weights_QK, shrunk_Q = blocks.probabilities(scores_QK, highest_Q[:, None]), jnp.exp2(before_Q - highest_Q)
        total_Q = total_Q * shrunk_Q + jnp.sum(weights_QK, axis=1)
        if blocks.rate:
            kept_QK = blocks.kept(seeds, b, n, blocks.places(block)[:, None], blocks.places(other)[None, :])
            weights_QK = jnp.where(kept_QK, weights_QK, 0.0)
        y_QH = y_QH * shrunk_Q[:, None] + _product(weights_QK.astype(blocks.dtype), qkv[b, keys, 2, head])
        return y_QH, highest_Q, total_Q

    nothing = (
        jnp.zeros((BLOCK, blocks.H), jnp.float32),
        jnp.full((BLOCK,), 2 * MASK_VALUE),
        jnp.zeros((BLOCK,), jnp.float32),
    )
    y_QH, highest_Q, total_Q = blocks.through(reach, b, block, one, nothing)
    y[b, queries, head] = (y_QH * (1.0 / (total_Q * (1.0 - blocks.rate)))[:, None]).astype(blocks.dtype)
    lse[b, n, queries] = highest_Q + jnp.log2(total_Q)


# ---- backward --------------------------------------------------------------------------------------------


def _call_backward(
    qkv: jax.Array,
    spans: jax.Array,
    seeds: jax.Array,
    y: jax.Array,
    lse: jax.Array,
    dy: jax.Array,
    *,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """The gradient of qkv, and its sums over the tokens of each block, float32[B, blocks, 3, F]."""
    blocks, shape = _Blocks(qkv, spans, head_size, dropout_rate, interpret), jax.ShapeDtypeStruct
    gradient = shape(qkv.shape, qkv.dtype), shape((blocks.B, blocks.count, 3, blocks.F), jnp.float32)
    inputs, shapes = (seeds, qkv, y, lse, dy), (*gradient, shape(lse.shape, jnp.float32))
    *of_queries, means = blocks.call(_queries_body, "attention_backward_q", inputs, shapes, {})
    inputs = (seeds, qkv, lse, means, dy, *of_queries)
    aliases = {len(inputs): 0, len(inputs) + 1: 1}  # the keys' and values' parts are written beside the queries'
    return tuple(blocks.call(_keys_body, "attention_backward_kv", inputs, gradient, aliases))


def _gradients(
    blocks: _Blocks, probabilities: jax.Array, kept: jax.Array | None, dprobabilities: jax.Array, means: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Probabilities after dropout, and the gradient of scores: p·(dp - Σ p·dp). Queries may be down or across."""
    dropped = probabilities
    if kept is not None:
        survival = 1.0 - blocks.rate
        dropped = jnp.where(kept, probabilities * (1.0 / survival), 0.0)
        dprobabilities = jnp.where(kept, dprobabilities * (1.0 / survival), 0.0)
    return dropped.astype(blocks.dtype), (probabilities * (dprobabilities - means)).astype(blocks.dtype)


def _queries_body(
    blocks: _Blocks, reach: Any, spans: Any, seeds: Any, qkv: Any, y: Any, lse: Any, dy: Any,
    dqkv: Any, sums: Any, means: Any,
) -> None:  # fmt: skip
    block, n, b = (pl.program_id(axis) for axis in range(3))
    queries, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_QH, dy_QH, lse_Q = qkv[b, queries, 0, head], dy[b, queries, head], lse[b, n, queries]
    span_2Q = spans[0, b, queries], spans[1, b, queries]
    means_Q = jnp.sum(y[b, queries, head].astype(jnp.float32) * dy_QH.astype(jnp.float32), axis=1)  # Σ p·dp is y·dy
    means[b, n, queries] = means_Q

    def one(other: jax.Array, same: jax.Array, dq_QH: jax.Array) -> jax.Array:
        keys = blocks.tokens(other)
        k_KH = qkv[b, keys, 1, head]
        scores_QK = blocks.inside(_product(q_QH, k_KH, True), other, same, span_2Q)
        probabilities_QK, kept_QK = blocks.probabilities(scores_QK, lse_Q[:, None]), None
        if blocks.rate:
            kept_QK = blocks.kept(seeds, b, n, blocks.places(block)[:, None], blocks.places(other)[None, :])
        dp_QK = _product(dy_QH, qkv[b, keys, 2, head], True)
        _, dscores_QK = _gradients(blocks, probabilities_QK, kept_QK, dp_QK, means_Q[:, None])
        return dq_QH + _product(dscores_QK, k_KH)

    nothing = jnp.zeros((BLOCK, blocks.H), jnp.float32)
    dq_QH = blocks.through(reach, b, block, one, nothing) * blocks.scale
    dqkv[b, queries, 0, head] = dq_QH.astype(blocks.dtype)
    sums[b, block, 0, head] = jnp.sum(dq_QH, axis=0)


def _keys_body(
    blocks: _Blocks, reach: Any, spans: Any, seeds: Any, qkv: Any, lse: Any, means: Any, dy: Any,
    _dqkv: Any, _sums: Any, dqkv: Any, sums: Any,
) -> None:  # fmt: skip
    block, n, b = (pl.program_id(axis) for axis in range(3))
    keys, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    k_KH, v_KH = qkv[b, keys, 1, head], qkv[b, keys, 2, head]
    span_2K = spans[0, b, keys], spans[1, b, keys]

    def one(other: jax.Array, same: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk_KH, dv_KH = carry
        queries = blocks.tokens(other)
        q_QH, dy_QH = qkv[b, queries, 0, head], dy[b, queries, head]
        scores_KQ = blocks.inside(_product(k_KH, q_QH, True), other, same, span_2K)
        probabilities_KQ, kept_KQ = blocks.probabilities(scores_KQ, lse[b, n, queries][None, :]), None
        if blocks.rate:
            kept_KQ = blocks.kept(seeds, b, n, blocks.places(other)[None, :], blocks.places(block)[:, None])
        dp_KQ = _product(v_KH, dy_QH, True)
        dropped_KQ, dscores_KQ = _gradients(blocks, probabilities_KQ, kept_KQ, dp_KQ, means[b, n, queries][None, :])
        return dk_KH + _product(dscores_KQ, q_QH), dv_KH + _product(dropped_KQ, dy_QH)

    nothing = jnp.zeros((BLOCK, blocks.H), jnp.float32)
    dk_KH, dv_KH = blocks.through(reach, b, block, one, (nothing, nothing))
    for part, gradient in ((1, dk_KH * blocks.scale), (2, dv_KH)):
        dqkv[b, keys, part, head] = gradient.astype(blocks.dtype)
        sums[b, block, part, head] = jnp.sum(gradient, axis=0)
