"""Attention inside documents as GPU kernels, through Pallas and Triton: see attention_kernel.py.

The flash algorithm (Dao 2022, 2023): a program takes a block of queries and goes through blocks of keys with a running
softmax; in the backward pass, a block of keys through queries for their gradients, and then as queries through keys.
It goes through the blocks that share a document with its own alone: of rows that hold several documents, a part of the
square. Queries, keys and values are read from one array as the product left it, and so are their gradients written.
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

from electramed_jax.model import random_bits
from electramed_jax.model.kernels import over_tensor
from electramed_jax.model.saved import saved

BLOCK = 64  # tokens
WARPS, STAGES = 4, 3  # of a program; of a loop: blocks that are on their way from memory
HEAD_SIZES = (16, 32, 64, 128)
NEVER = -1e9  # score of a key in another document
LOG2E = math.log2(math.e)


def suits(row_length: int, num_heads: int, head_size: int) -> bool:
    """Whether the kernels have blocks for these sizes, of one device's part."""
    return row_length % BLOCK == 0 and head_size in HEAD_SIZES


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    words_2BN: jax.Array,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> jax.Array:
    """See attention_kernel.py."""
    # As one matrix, to whose columns cuBLASLt can add the bias.
    kernel_DG, bias_G = kernel_D3F.reshape(len(kernel_D3F), -1), bias_3F.reshape(-1)
    qkv_BTG = jnp.einsum("btd,dg->btg", x_BTD, kernel_DG) + bias_G.astype(x_BTD.dtype)[None, None]
    qkv_BT3F = saved(qkv_BTG.reshape(*x_BTD.shape[:2], *bias_3F.shape))
    return _attend(qkv_BT3F, segments_BT, words_2BN, head_size, dropout_rate, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _attend(
    qkv: jax.Array, segments: jax.Array, words: jax.Array, head_size: int, dropout_rate: float, interpret: bool
) -> jax.Array:
    return _forward(qkv, segments, words, head_size, dropout_rate, interpret)[0]


QKV, SEGMENTS, WORDS = jax.P(None, None, None, "tensor"), jax.P(), jax.P(None, None, "tensor")
Y, PER_QUERY = jax.P(None, None, "tensor"), jax.P(None, "tensor")


def _forward(
    qkv: jax.Array, segments: jax.Array, words: jax.Array, head_size: int, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    call = functools.partial(_call_forward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    y, lse = over_tensor(call, (QKV, SEGMENTS, WORDS), (Y, PER_QUERY))(qkv, segments, words)
    y, lse = saved(y), saved(lse)
    return y, (qkv, segments, words, y, lse)


def _backward(
    head_size: int, dropout_rate: float, interpret: bool, kept: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, None, None]:
    call = functools.partial(_call_backward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    return over_tensor(call, (QKV, SEGMENTS, WORDS, Y, PER_QUERY, Y), QKV)(*kept, dy), None, None


_attend.defvjp(_forward, _backward)


class _Blocks:
    """How one device's arrays are cut up: a program has one block of tokens, of one head and one row."""

    def __init__(self, qkv: jax.Array, head_size: int, dropout_rate: float):
        self.B, self.T, _, self.F = qkv.shape
        self.H, self.rate, self.dtype, self.size = head_size, dropout_rate, qkv.dtype, BLOCK
        self.N = self.F // head_size

    def call(
        self, body: Callable[..., None], name: str, inputs: tuple[jax.Array, ...], shapes: Any, interpret: bool
    ) -> Any:
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.T // self.size, self.N, self.B),
            out_shape=shapes,
            compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=STAGES),
            name=name,
            interpret=interpret,
        )(*inputs)

    def neighbours(self, segments_BT: jax.Array) -> jax.Array:
        """int32[B, blocks, 2]: for each block, from where to where others may share a document with it."""
        in_blocks = segments_BT.reshape(self.B, -1, self.size)
        low, high = jnp.min(in_blocks, axis=-1), jnp.max(in_blocks, axis=-1)
        meet = (low[:, :, None] <= high[:, None, :]) & (low[:, None, :] <= high[:, :, None])
        first = jnp.argmax(meet, axis=-1)
        last = meet.shape[-1] - 1 - jnp.argmax(meet[:, :, ::-1], axis=-1)
        return jnp.stack([first, last + 1], axis=-1).astype(jnp.int32)

    # What follows is called inside the kernels.

    def tokens(self, block: jax.Array) -> Any:
        return pl.ds(block * self.size, self.size)

    def kept(self, words: Any, b: jax.Array, n: jax.Array, query: jax.Array, key: jax.Array) -> jax.Array:
        """bool: what dropout leaves, of queries and keys at these places of the row."""
        return random_bits.kept(query * self.T + key, words[0, b, n], words[1, b, n], self.rate)

    def places(self, block: jax.Array) -> jax.Array:
        return block * self.size + jnp.arange(self.size, dtype=jnp.int32)


def _product(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a @ b, or a @ b.T, in float32."""
    over = 1 if transposed else 0
    return jax.lax.dot_general(a, b, (((1,), (over,)), ((), ())), preferred_element_type=jnp.float32)


# ---- forward ---------------------------------------------------------------------------------------------


def _call_forward(
    qkv: jax.Array, segments: jax.Array, words: jax.Array, *, head_size: int, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    blocks = _Blocks(qkv, head_size, dropout_rate)
    y = jax.ShapeDtypeStruct((blocks.B, blocks.T, blocks.F), qkv.dtype)
    lse = jax.ShapeDtypeStruct((blocks.B, blocks.N, blocks.T), jnp.float32)
    inputs = (blocks.neighbours(segments), segments, words, qkv)
    return tuple(blocks.call(_forward_body, "attention_forward", inputs, (y, lse), interpret))


def _forward_body(blocks: _Blocks, neighbours: Any, segments: Any, words: Any, qkv: Any, y: Any, lse: Any) -> None:
    block, n, b = (pl.program_id(axis) for axis in range(3))
    queries, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_QH, of_query_Q = qkv[b, queries, 0, head], segments[b, queries]
    query_Q1 = blocks.places(block)[:, None]

    def one(other: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        y_QH, highest_Q, total_Q = carry
        keys = blocks.tokens(other)
        scores_QK = _product(q_QH, qkv[b, keys, 1, head], True) * (blocks.H**-0.5 * LOG2E)
        same_QK = of_query_Q[:, None] == segments[b, keys][None, :]
        scores_QK = jnp.where(same_QK, scores_QK, NEVER)
        before_Q, highest_Q = highest_Q, jnp.maximum(highest_Q, jnp.max(scores_QK, axis=1))
        weights_QK, shrunk_Q = jnp.exp2(scores_QK - highest_Q[:, None]), jnp.exp2(before_Q - highest_Q)
        total_Q = total_Q * shrunk_Q + jnp.sum(weights_QK, axis=1)
        if blocks.rate:
            key_1K = blocks.places(other)[None, :]
            weights_QK = jnp.where(blocks.kept(words, b, n, query_Q1, key_1K), weights_QK, 0.0)
        y_QH = y_QH * shrunk_Q[:, None] + _product(weights_QK.astype(blocks.dtype), qkv[b, keys, 2, head])
        return y_QH, highest_Q, total_Q

    size = blocks.size
    nothing = jnp.zeros((size, blocks.H), jnp.float32), jnp.full((size,), 2 * NEVER), jnp.zeros((size,), jnp.float32)
    first, end = neighbours[b, block, 0], neighbours[b, block, 1]
    y_QH, highest_Q, total_Q = jax.lax.fori_loop(first, end, one, nothing)
    y[b, queries, head] = (y_QH / (total_Q * (1.0 - blocks.rate))[:, None]).astype(blocks.dtype)
    lse[b, n, queries] = highest_Q + jnp.log2(total_Q)


# ---- backward --------------------------------------------------------------------------------------------


def _call_backward(
    qkv: jax.Array,
    segments: jax.Array,
    words: jax.Array,
    y: jax.Array,
    lse: jax.Array,
    dy: jax.Array,
    *,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> jax.Array:
    blocks = _Blocks(qkv, head_size, dropout_rate)
    # Of a softmax: the gradient of each score is p·(dp - Σ p·dp), and that sum is y·dy.
    both_BTNH = (y.astype(jnp.float32) * dy.astype(jnp.float32)).reshape(*y.shape[:2], blocks.N, blocks.H)
    sums_BNT = jnp.sum(both_BTNH, axis=-1).swapaxes(1, 2)
    inputs = (blocks.neighbours(segments), segments, words, qkv, lse, sums_BNT, dy)
    dqkv = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    return blocks.call(_backward_body, "attention_backward", inputs, dqkv, interpret)


def _backward_body(
    blocks: _Blocks, neighbours: Any, segments: Any, words: Any, qkv: Any, lse: Any, sums: Any, dy: Any, dqkv: Any
) -> None:
    block, n, b = (pl.program_id(axis) for axis in range(3))
    mine, head = blocks.tokens(block), pl.ds(n * blocks.H, blocks.H)
    q_mine, k_mine, v_mine = (qkv[b, mine, c, head] for c in range(3))
    dy_mine, lse_mine, sums_mine = dy[b, mine, head], lse[b, n, mine], sums[b, n, mine]
    document_mine, place_mine = segments[b, mine], blocks.places(block)
    first, end = neighbours[b, block, 0], neighbours[b, block, 1]
    scale, survival = blocks.H**-0.5, 1.0 - blocks.rate

    def gradients(
        scores: jax.Array, same: jax.Array, lse: jax.Array, dprobabilities: jax.Array, sums: jax.Array,
        query: jax.Array, key: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:  # fmt: skip
        """Probabilities after dropout, and the gradient of scores; queries may be down or across."""
        probabilities = jnp.where(same, jnp.exp2(scores * (scale * LOG2E) - lse), 0.0)
        dropped = probabilities
        if blocks.rate:
            kept = blocks.kept(words, b, n, query, key)
            dropped = jnp.where(kept, probabilities * (1.0 / survival), 0.0)
            dprobabilities = jnp.where(kept, dprobabilities * (1.0 / survival), 0.0)
        return dropped.astype(blocks.dtype), (probabilities * (dprobabilities - sums)).astype(blocks.dtype)

    def through_queries(other: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        dk_KH, dv_KH = carry
        queries = blocks.tokens(other)
        q_QH, dy_QH = qkv[b, queries, 0, head], dy[b, queries, head]
        dropped_KQ, dscores_KQ = gradients(
            _product(k_mine, q_QH, True),
            document_mine[:, None] == segments[b, queries][None, :],
            lse[b, n, queries][None, :],
            _product(v_mine, dy_QH, True),
            sums[b, n, queries][None, :],
            blocks.places(other)[None, :],
            place_mine[:, None],
        )
        return dk_KH + _product(dscores_KQ, q_QH), dv_KH + _product(dropped_KQ, dy_QH)

    def through_keys(other: jax.Array, dq_QH: jax.Array) -> jax.Array:
        keys = blocks.tokens(other)
        k_KH = qkv[b, keys, 1, head]
        _, dscores_QK = gradients(
            _product(q_mine, k_KH, True),
            document_mine[:, None] == segments[b, keys][None, :],
            lse_mine[:, None],
            _product(dy_mine, qkv[b, keys, 2, head], True),
            sums_mine[:, None],
            place_mine[:, None],
            blocks.places(other)[None, :],
        )
        return dq_QH + _product(dscores_QK, k_KH)

    nothing = jnp.zeros((blocks.size, blocks.H), jnp.float32)
    dk_KH, dv_KH = jax.lax.fori_loop(first, end, through_queries, (nothing, nothing))
    dq_QH = jax.lax.fori_loop(first, end, through_keys, nothing)
    for c, gradient in enumerate((dq_QH * scale, dk_KH * scale, dv_KH)):
        dqkv[b, mine, c, head] = gradient.astype(blocks.dtype)
