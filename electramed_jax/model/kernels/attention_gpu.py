"""Attention within documents as GPU kernels, in Pallas for Triton; see attention.py.

The flash algorithm (Dao 2022, 2023): one program handles a block of queries and loops over blocks of keys with a
running softmax. The backward pass has two kernels: one loops over keys for the gradients of queries, the other over
queries for the gradients of keys and values. A loop visits only the blocks that share a document with the program's own
block: a part of the square, when a row holds several documents. Two blocks inside one document need no mask. Queries,
keys and values are read from the array that the projection wrote, and their gradients are written in the same layout.
The gradients of the biases are summed in the kernels.
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

from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.kernels.platform import shard_over_tensor
from electramed_jax.model.kernels.ptx import PtxMath
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import MASK_VALUE
from electramed_jax.model.ops.remat import save_for_backward

BLOCK = 64  # tokens
NUM_WARPS, NUM_STAGES = 4, 3  # of a program; software pipeline stages of its loop
HEAD_SIZES = (16, 32, 64, 128)
LOG2E = math.log2(math.e)


def supports(row_length: int, _num_heads: int, head_size: int, *, paired_dropout: bool = False) -> bool:
    """Returns whether the kernels support these sizes of one device's shard, and this form of dropout."""
    return row_length % BLOCK == 0 and head_size in HEAD_SIZES and not paired_dropout


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    spec: AttentionSpec,
) -> jax.Array:
    """Computes `attention.attend` on a GPU."""
    # One 2-D matrix: cuBLASLt can then add the bias to the product.
    kernel_DG = kernel_D3F.reshape(len(kernel_D3F), -1)
    qkv_BTG = jnp.einsum("btd,dg->btg", x_BTD, kernel_DG)
    return _attend(qkv_BTG, bias_3F, document_bounds(segments_BT), seeds_2BN, spec)


def document_bounds(segments_BT: jax.Array) -> jax.Array:
    """Returns the first position of each token's document and the position after its last, int32[2, B, T]."""
    T = segments_BT.shape[1]
    position_1T, differs = jnp.arange(T, dtype=jnp.int32)[None], segments_BT[:, 1:] != segments_BT[:, :-1]
    is_first_BT = jnp.pad(differs, ((0, 0), (1, 0)), constant_values=True)
    is_last_BT = jnp.pad(differs, ((0, 0), (0, 1)), constant_values=True)
    begin_BT = jax.lax.cummax(jnp.where(is_first_BT, position_1T, 0), axis=1)
    end_BT = jax.lax.cummin(jnp.where(is_last_BT, position_1T + 1, T), axis=1, reverse=True)
    return jnp.stack([begin_BT, end_BT])


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(product: jax.Array, bias: jax.Array, bounds: jax.Array, seeds: jax.Array, spec: AttentionSpec) -> jax.Array:
    return _forward(product, bias, bounds, seeds, spec)[0]


# Partition specs of the kernels' arrays along `tensor`.
QKV, BOUNDS, SEEDS = jax.P(None, None, None, "tensor"), jax.P(), jax.P(None, None, "tensor")
Y, LSE = jax.P(None, None, "tensor"), jax.P(None, "tensor")


def _forward(
    product: jax.Array, bias: jax.Array, bounds: jax.Array, seeds: jax.Array, spec: AttentionSpec
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    qkv = product + bias.reshape(-1).astype(product.dtype)[None, None]
    qkv = save_for_backward(qkv.reshape(*product.shape[:2], *bias.shape))
    call = functools.partial(_call_forward, spec=spec)
    y, lse = shard_over_tensor(call, (QKV, BOUNDS, SEEDS), (Y, LSE))(qkv, bounds, seeds)
    y, lse = save_for_backward(y), save_for_backward(lse)
    return y, (bias, qkv, bounds, seeds, y, lse)


def _backward(
    spec: AttentionSpec, residuals: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, None, None]:
    bias, *inputs = residuals
    call = functools.partial(_call_backward, spec=spec)
    dqkv, sums = shard_over_tensor(call, (QKV, BOUNDS, SEEDS, Y, LSE, Y), (QKV, QKV))(*inputs, dy)
    return dqkv.reshape(*dy.shape[:2], -1), jnp.sum(sums, axis=(0, 1)).astype(bias.dtype), None, None


_attend.defvjp(_forward, _backward)


class _Blocks:
    """Block layout of one device's arrays. A program handles one block of tokens of one head and one row."""

    def __init__(self, qkv: jax.Array, bounds: jax.Array, spec: AttentionSpec):
        self.B, self.T, _, self.F = qkv.shape
        self.H, self.rate, self.dtype = spec.head_size, spec.dropout_rate, qkv.dtype
        self.interpret = spec.interpret is not None
        self.N, self.num_blocks = self.F // self.H, self.T // BLOCK
        self.ptx, self.bounds, self.scale = PtxMath(self.interpret), bounds, self.H**-0.5

    def call(
        self, body: Callable[..., None], name: str, inputs: tuple[jax.Array, ...], shapes: Any, aliases: dict[int, int]
    ) -> Any:
        """Runs a kernel on a grid of (blocks, heads, rows)."""
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.num_blocks, self.N, self.B),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=NUM_WARPS, num_stages=NUM_STAGES),
            input_output_aliases=aliases,
            name=name,
            interpret=self.interpret,
        )(self._block_ranges(), self.bounds, *inputs)

    def _block_ranges(self) -> jax.Array:
        """Returns two block ranges for each block, int32[B, blocks, 4].

        The first [begin, end) covers the blocks that share a document with it. The second [begin, end) covers the
        blocks that lie, like the block itself, inside one and the same document.
        """
        begin, end = self.bounds.reshape(2, self.B, -1, BLOCK)
        first, last = (..., 0), (..., -1)
        shared = begin[first] // BLOCK, pl.cdiv(end[last], BLOCK)
        # In a block with several documents the last one begins after the first one ends: the range is empty.
        unmasked = pl.cdiv(begin[last], BLOCK), end[first] // BLOCK
        return jnp.stack([*shared, *unmasked], axis=-1).astype(jnp.int32)

    # The methods below are called inside the kernels.

    def loop(self, ranges: Any, b: jax.Array, block: jax.Array, body: Callable[..., Any], carry: Any) -> Any:
        """Runs `carry = body(other block, whether both lie inside one document, carry)` over the shared blocks."""
        first, end, unmasked_first, unmasked_end = (ranges[b, block, i] for i in range(4))

        def step(other: jax.Array, carry: Any) -> Any:
            return body(other, (other >= unmasked_first) & (other < unmasked_end), carry)

        return jax.lax.fori_loop(first, end, step, carry)

    def tokens(self, block: jax.Array) -> Any:
        """Returns the slice of the block's tokens."""
        return pl.ds(block * BLOCK, BLOCK)

    def positions(self, block: jax.Array) -> jax.Array:
        """Returns the positions of the block's tokens in the row, int32[BLOCK]."""
        return block * BLOCK + jnp.arange(BLOCK, dtype=jnp.int32)

    def mask_scores(
        self, scores_MO: jax.Array, other: jax.Array, unmasked: jax.Array, bounds_2M: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        """Sets scores between tokens of different documents to MASK_VALUE."""
        position_1O = self.positions(other)[None, :]
        begin_M, end_M = bounds_2M

        def mask(scores_MO: jax.Array) -> jax.Array:
            return jnp.where((position_1O >= begin_M[:, None]) & (position_1O < end_M[:, None]), scores_MO, MASK_VALUE)

        return jax.lax.cond(unmasked, lambda scores_MO: scores_MO, mask, scores_MO)

    def probabilities(self, scores: jax.Array, lse: jax.Array) -> jax.Array:
        """Returns exp(scaled scores) over the softmax normalizer; `lse` is the normalizer's logarithm to base 2."""
        return self.ptx.exp2(scores, self.scale * LOG2E, -lse)

    def keep_mask(self, seeds: Any, b: jax.Array, n: jax.Array, query: jax.Array, key: jax.Array) -> jax.Array:
        """Returns the dropout mask of queries and keys at these positions of the row; True is kept."""
        return dropout_bits.keep_mask(query * self.T + key, seeds[0, b, n], seeds[1, b, n], self.rate)


def _product(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """Returns a @ b, or a @ b.T, in float32."""
    over = 1 if transposed else 0
    return jax.lax.dot_general(a, b, (((1,), (over,)), ((), ())), preferred_element_type=jnp.float32)


# ---- forward ---------------------------------------------------------------------------------------------


def _call_forward(
    qkv: jax.Array, bounds: jax.Array, seeds: jax.Array, *, spec: AttentionSpec
) -> tuple[jax.Array, jax.Array]:
    """Returns the result, [B, T, F], and the logarithm to base 2 of the softmax normalizers, float32[B, N, T]."""
    blocks = _Blocks(qkv, bounds, spec)
    y = jax.ShapeDtypeStruct((blocks.B, blocks.T, blocks.F), qkv.dtype)
    lse = jax.ShapeDtypeStruct((blocks.B, blocks.N, blocks.T), jnp.float32)
    return tuple(blocks.call(_forward_body, "attention_forward", (seeds, qkv), (y, lse), {}))


def _forward_body(blocks: _Blocks, ranges: Any, bounds: Any, seeds: Any, qkv: Any, y: Any, lse: Any) -> None:
    block, n, b = (pl.program_id(axis) for axis in range(3))
    queries, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_QH, bounds_2Q = qkv[b, queries, 0, head], (bounds[0, b, queries], bounds[1, b, queries])

    def step(other: jax.Array, unmasked: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        y_QH, max_Q, total_Q = carry
        keys = blocks.tokens(other)
        scores_QK = blocks.mask_scores(_product(q_QH, qkv[b, keys, 1, head], True), other, unmasked, bounds_2Q)
        previous_Q = max_Q
        max_Q = jnp.maximum(previous_Q, jnp.max(scores_QK, axis=1) * (blocks.scale * LOG2E))
        weights_QK, rescale_Q = blocks.probabilities(scores_QK, max_Q[:, None]), jnp.exp2(previous_Q - max_Q)
        total_Q = total_Q * rescale_Q + jnp.sum(weights_QK, axis=1)
        if blocks.rate:
            keep_QK = blocks.keep_mask(seeds, b, n, blocks.positions(block)[:, None], blocks.positions(other)[None, :])
            weights_QK = jnp.where(keep_QK, weights_QK, 0.0)
        y_QH = y_QH * rescale_Q[:, None] + _product(weights_QK.astype(blocks.dtype), qkv[b, keys, 2, head])
        return y_QH, max_Q, total_Q

    initial = (
        jnp.zeros((BLOCK, blocks.H), jnp.float32),
        jnp.full((BLOCK,), 2 * MASK_VALUE),
        jnp.zeros((BLOCK,), jnp.float32),
    )
    y_QH, max_Q, total_Q = blocks.loop(ranges, b, block, step, initial)
    y[b, queries, head] = (y_QH * (1.0 / (total_Q * (1.0 - blocks.rate)))[:, None]).astype(blocks.dtype)
    lse[b, n, queries] = max_Q + jnp.log2(total_Q)


# ---- backward --------------------------------------------------------------------------------------------


def _call_backward(
    qkv: jax.Array,
    bounds: jax.Array,
    seeds: jax.Array,
    y: jax.Array,
    lse: jax.Array,
    dy: jax.Array,
    *,
    spec: AttentionSpec,
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradient of qkv, and its sums over the tokens of each block, float32[B, blocks, 3, F]."""
    blocks, shape = _Blocks(qkv, bounds, spec), jax.ShapeDtypeStruct
    gradient = shape(qkv.shape, qkv.dtype), shape((blocks.B, blocks.num_blocks, 3, blocks.F), jnp.float32)
    inputs, shapes = (seeds, qkv, y, lse, dy), (*gradient, shape(lse.shape, jnp.float32))
    *query_gradients, means = blocks.call(_queries_body, "attention_backward_q", inputs, shapes, {})
    inputs = (seeds, qkv, lse, means, dy, *query_gradients)
    aliases = {len(inputs): 0, len(inputs) + 1: 1}  # gradients of keys and values go into the same arrays
    return tuple(blocks.call(_keys_body, "attention_backward_kv", inputs, gradient, aliases))


def _gradients(
    blocks: _Blocks, probabilities: jax.Array, keep: jax.Array | None, dprobabilities: jax.Array, means: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns probabilities after dropout, and the gradient of scores, p·(dp - Σ p·dp). Works for [Q, K] and [K, Q]."""
    dropped = probabilities
    if keep is not None:
        survival = 1.0 - blocks.rate
        dropped = jnp.where(keep, probabilities * (1.0 / survival), 0.0)
        dprobabilities = jnp.where(keep, dprobabilities * (1.0 / survival), 0.0)
    return dropped.astype(blocks.dtype), (probabilities * (dprobabilities - means)).astype(blocks.dtype)


def _queries_body(
    blocks: _Blocks, ranges: Any, bounds: Any, seeds: Any, qkv: Any, y: Any, lse: Any, dy: Any,
    dqkv: Any, sums: Any, means: Any,
) -> None:  # fmt: skip
    block, n, b = (pl.program_id(axis) for axis in range(3))
    queries, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_QH, dy_QH, lse_Q = qkv[b, queries, 0, head], dy[b, queries, head], lse[b, n, queries]
    bounds_2Q = bounds[0, b, queries], bounds[1, b, queries]
    means_Q = jnp.sum(y[b, queries, head].astype(jnp.float32) * dy_QH.astype(jnp.float32), axis=1)  # Σ p·dp is y·dy
    means[b, n, queries] = means_Q

    def step(other: jax.Array, unmasked: jax.Array, dq_QH: jax.Array) -> jax.Array:
        keys = blocks.tokens(other)
        k_KH = qkv[b, keys, 1, head]
        scores_QK = blocks.mask_scores(_product(q_QH, k_KH, True), other, unmasked, bounds_2Q)
        probabilities_QK, keep_QK = blocks.probabilities(scores_QK, lse_Q[:, None]), None
        if blocks.rate:
            keep_QK = blocks.keep_mask(seeds, b, n, blocks.positions(block)[:, None], blocks.positions(other)[None, :])
        dp_QK = _product(dy_QH, qkv[b, keys, 2, head], True)
        _, dscores_QK = _gradients(blocks, probabilities_QK, keep_QK, dp_QK, means_Q[:, None])
        return dq_QH + _product(dscores_QK, k_KH)

    initial = jnp.zeros((BLOCK, blocks.H), jnp.float32)
    dq_QH = blocks.loop(ranges, b, block, step, initial) * blocks.scale
    dqkv[b, queries, 0, head] = dq_QH.astype(blocks.dtype)
    sums[b, block, 0, head] = jnp.sum(dq_QH, axis=0)


def _keys_body(
    blocks: _Blocks, ranges: Any, bounds: Any, seeds: Any, qkv: Any, lse: Any, means: Any, dy: Any,
    _dqkv: Any, _sums: Any, dqkv: Any, sums: Any,
) -> None:  # fmt: skip
    block, n, b = (pl.program_id(axis) for axis in range(3))
    keys, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    k_KH, v_KH = qkv[b, keys, 1, head], qkv[b, keys, 2, head]
    bounds_2K = bounds[0, b, keys], bounds[1, b, keys]

    def step(other: jax.Array, unmasked: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk_KH, dv_KH = carry
        queries = blocks.tokens(other)
        q_QH, dy_QH = qkv[b, queries, 0, head], dy[b, queries, head]
        scores_KQ = blocks.mask_scores(_product(k_KH, q_QH, True), other, unmasked, bounds_2K)
        probabilities_KQ, keep_KQ = blocks.probabilities(scores_KQ, lse[b, n, queries][None, :]), None
        if blocks.rate:
            keep_KQ = blocks.keep_mask(seeds, b, n, blocks.positions(other)[None, :], blocks.positions(block)[:, None])
        dp_KQ = _product(v_KH, dy_QH, True)
        dropped_KQ, dscores_KQ = _gradients(blocks, probabilities_KQ, keep_KQ, dp_KQ, means[b, n, queries][None, :])
        return dk_KH + _product(dscores_KQ, q_QH), dv_KH + _product(dropped_KQ, dy_QH)

    zeros = jnp.zeros((BLOCK, blocks.H), jnp.float32)
    dk_KH, dv_KH = blocks.loop(ranges, b, block, step, (zeros, zeros))
    for part, gradient in ((1, dk_KH * blocks.scale), (2, dv_KH)):
        dqkv[b, keys, part, head] = gradient.astype(blocks.dtype)
        sums[b, block, part, head] = jnp.sum(gradient, axis=0)
