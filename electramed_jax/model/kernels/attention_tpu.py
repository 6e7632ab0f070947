"""Attention inside documents as one TPU kernel: see attention_kernel.py.

For rows of up to `MAX_ROW_LENGTH` tokens a head's whole T x T square fits there, so no online softmax is needed, and one
backward kernel gives the gradients of queries, keys and values from a square it computes once. Squares are held
transposed, keys down and queries across (`ST`): what is kept per query is then a row of lanes, and a sum over keys is
a plain sum of vectors. Heads narrower than the 128 lanes of a register are worked on in groups that fill one, so that
projections are read and written as they are, without a transpose.

libtpu compiles it for v4, v5e, v5p and v6e; it has not run on a chip yet.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from electramed_jax.model.kernels.platform import LANES, shard_over_tensor
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import MASK_VALUE
from electramed_jax.model.ops.remat import save_for_backward

MAX_ROW_LENGTH = 512  # tokens: the code for a square is unrolled, and grows with it
LOG2E = math.log2(math.e)


def supports(row_length: int, num_heads: int, head_size: int) -> bool:
    """Whether the kernel has blocks for these sizes, of one device's part."""
    width = num_heads * head_size
    in_groups = width % LANES == 0 and LANES % head_size == 0
    return row_length % LANES == 0 and row_length <= MAX_ROW_LENGTH and (in_groups or width < LANES)


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
    qkv_3BTF = jnp.einsum("btd,dcf->cbtf", x_BTD, kernel_D3F)
    return _attend(qkv_3BTF, bias_3F, segments_BT, seeds_2BN, head_size, dropout_rate, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    qkv_3BTF: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> jax.Array:
    return _forward(qkv_3BTF, bias_3F, segments_BT, seeds_2BN, head_size, dropout_rate, interpret)[0]


QKV, SEGMENTS, SEEDS = jax.P(None, None, None, "tensor"), jax.P(), jax.P(None, None, "tensor")
Y, LSE = jax.P(None, None, "tensor"), jax.P(None, "tensor")


def _forward(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seeds: jax.Array,
    head_size: int, dropout_rate: float, interpret: bool,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:  # fmt: skip
    call = functools.partial(_call_forward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    qkv = save_for_backward(qkv + bias.astype(qkv.dtype)[:, None, None, :])
    y, lse = shard_over_tensor(call, (QKV, SEGMENTS, SEEDS), (Y, LSE))(qkv, segments, seeds)
    y, lse = save_for_backward(y), save_for_backward(lse)
    return y, (qkv, bias, segments, seeds, y, lse)


def _backward(
    head_size: int, dropout_rate: float, interpret: bool, kept: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array | None, ...]:
    qkv, bias, segments, seeds, y, lse = kept
    call = functools.partial(_call_backward, head_size=head_size, dropout_rate=dropout_rate, interpret=interpret)
    on_devices = shard_over_tensor(call, (QKV, SEGMENTS, SEEDS, Y, LSE, Y), (QKV, QKV))
    dqkv, dbias = on_devices(qkv, segments, seeds, y, lse, dy)
    return dqkv, jnp.sum(dbias, axis=(1, 2)).astype(bias.dtype), None, None


_attend.defvjp(_forward, _backward)


# ---- blocks: some rows of the batch by one group of heads ------------------------------------------------


class _Blocks:
    """How one device's arrays are cut up."""

    def __init__(self, qkv: jax.Array, head_size: int, dropout_rate: float):
        _, self.B, self.T, self.F = qkv.shape
        self.H, self.rate, self.dtype = head_size, dropout_rate, qkv.dtype
        self.width = min(LANES, self.F)
        self.heads = self.width // head_size  # of a group
        self.groups = self.F // self.width
        # Short rows several at a time, up to the work of one long one.
        self.rows = next(n for n in range(max(1, MAX_ROW_LENGTH // self.T), 0, -1) if self.B % n == 0)

    def specs(self) -> dict[str, pl.BlockSpec]:
        T, R = self.T, self.rows
        return {
            "seeds": pl.BlockSpec(memory_space=pltpu.SMEM),
            "down": pl.BlockSpec((R, T, LANES), lambda b, n: (b, 0, 0)),
            "across": pl.BlockSpec((R, 1, T), lambda b, n: (b, 0, 0)),
            "qkv": pl.BlockSpec((3, R, T, self.width), lambda b, n: (0, b, 0, n)),
            "y": pl.BlockSpec((R, T, self.width), lambda b, n: (b, 0, n)),
            "lse": pl.BlockSpec((R, 1, self.heads, T), lambda b, n: (b, n, 0, 0)),
            "sums": pl.BlockSpec((3, 1, 1, self.width), lambda b, n: (0, b, 0, n)),
        }

    def inputs(self, segments: jax.Array, seeds: jax.Array) -> tuple[jax.Array, ...]:
        """Key seeds, and the segments down the sublanes and across the lanes."""
        down = jnp.broadcast_to(segments[:, :, None], (self.B, self.T, LANES))
        return seeds.reshape(2, -1), down, segments[:, None, :]

    def call(self, body: Callable[..., None], name: str, inputs: list[str], outputs: Any, shapes: Any, **more: Any):
        specs = self.specs()
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.B // self.rows, self.groups),
            in_specs=[specs[one] for one in ["seeds", "down", "across", *inputs]],
            out_specs=jax.tree.map(specs.get, outputs),
            out_shape=shapes,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            name=name,
            metadata={"turns": str(self.B // self.rows * self.groups)},
            **more,
        )

    def cost(self, products: int) -> pl.CostEstimate:
        """Of `products` matrix products with every square, and their arrays."""
        squares = self.B * self.F // self.H * self.T**2
        moved = (products + 2) * self.B * self.T * self.F * self.dtype.itemsize
        return pl.CostEstimate(2 * products * squares * self.H, squares, moved)

    # What follows is called inside the kernels.

    def squares(self, down: Any, across: Any) -> Iterator[tuple[int, int, jax.Array]]:
        """(row, head, mask bool[S, T]) of the block, one square after the other."""
        for row in range(self.rows):
            same = jnp.tile(down[row], (1, self.T // LANES)) == across[row]
            for head in range(self.heads):
                yield row, head, same

    def only(self, x_TL: jax.Array, head: int) -> jax.Array:
        """x with the lanes of other heads zeroed: the matrix unit adds them up at no cost."""
        if self.heads == 1:
            return x_TL
        lane = jax.lax.broadcasted_iota(jnp.int32, x_TL.shape, 1)
        return jnp.where((lane >= head * self.H) & (lane < (head + 1) * self.H), x_TL, 0)

    def of_head(self, x_LT: jax.Array, head: int) -> jax.Array:
        return x_LT[head * self.H : (head + 1) * self.H]

    def scores(self, k_SL: jax.Array, q_TL: jax.Array, same_ST: jax.Array) -> jax.Array:
        """In powers of 2."""
        scores_ST = _product(k_SL, q_TL, 1, 1) * (self.H**-0.5 * LOG2E)
        return jnp.where(same_ST, scores_ST, MASK_VALUE)

    def kept(self, seeds: Any, row: int, head: int) -> jax.Array:
        """bool[S, T]: what dropout leaves."""
        row = pl.program_id(0) * self.rows + row
        head = pl.program_id(1) * self.heads + head
        place = row * (self.groups * self.heads) + head
        square = (self.T, self.T)
        key, query = (jax.lax.broadcasted_iota(jnp.int32, square, axis) for axis in (0, 1))
        return dropout_bits.keep_mask(query * self.T + key, seeds[0, place], seeds[1, place], self.rate)


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


# ---- forward ---------------------------------------------------------------------------------------------


def _call_forward(
    qkv: jax.Array, segments: jax.Array, seeds: jax.Array, *, head_size: int, dropout_rate: float, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    blocks = _Blocks(qkv, head_size, dropout_rate)
    B, T, F = qkv.shape[1:]
    y = jax.ShapeDtypeStruct((B, T, F), qkv.dtype)
    lse = jax.ShapeDtypeStruct((B, blocks.groups, blocks.heads, T), jnp.float32)
    call = blocks.call(
        _forward_body, "attention_forward", ["qkv"], ("y", "lse"), (y, lse),
        cost_estimate=blocks.cost(2), interpret=interpret,
    )  # fmt: skip
    return tuple(call(*blocks.inputs(segments, seeds), qkv))


def _forward_body(blocks: _Blocks, seeds: Any, down: Any, across: Any, qkv: Any, y: Any, lse: Any) -> None:
    parts_HT: list[jax.Array] = []
    for row, head, same_ST in blocks.squares(down, across):
        q_TL, k_SL, v_SL = (qkv[i, row] for i in range(3))
        scores_ST = blocks.scores(k_SL, blocks.only(q_TL, head), same_ST)
        highest_1T = jnp.max(scores_ST, axis=0, keepdims=True)
        weights_ST = jnp.exp2(scores_ST - highest_1T)
        total_1T = jnp.sum(weights_ST, axis=0, keepdims=True)
        if blocks.rate:
            weights_ST = jnp.where(blocks.kept(seeds, row, head), weights_ST, 0.0)
        y_LT = _product(v_SL, weights_ST.astype(blocks.dtype), 0, 0)
        parts_HT.append(blocks.of_head(y_LT, head) / (total_1T * (1.0 - blocks.rate)))
        lse[row, 0, pl.ds(head, 1)] = highest_1T + jnp.log2(total_1T)
        if head == blocks.heads - 1:
            y[row] = jnp.concatenate(parts_HT, axis=0).T.astype(blocks.dtype)
            parts_HT = []


# ---- backward --------------------------------------------------------------------------------------------


def _call_backward(
    qkv: jax.Array,
    segments: jax.Array,
    seeds: jax.Array,
    y: jax.Array,
    lse: jax.Array,
    dy: jax.Array,
    *,
    head_size: int,
    dropout_rate: float,
    interpret: bool,
) -> tuple[jax.Array, jax.Array]:
    """dqkv, and its sums over the tokens of each block, [3, blocks, 1, F]."""
    blocks = _Blocks(qkv, head_size, dropout_rate)
    dqkv = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    sums = jax.ShapeDtypeStruct((3, blocks.B // blocks.rows, 1, blocks.F), jnp.float32)
    call = blocks.call(
        _backward_body, "attention_backward", ["qkv", "y", "lse", "y"], ("qkv", "sums"), (dqkv, sums),
        cost_estimate=blocks.cost(5), interpret=interpret,
    )  # fmt: skip
    return tuple(call(*blocks.inputs(segments, seeds), qkv, y, lse, dy))


def _backward_body(
    blocks: _Blocks, seeds: Any, down: Any, across: Any, qkv: Any, y: Any, lse: Any, dy: Any, dqkv: Any, sums: Any
) -> None:
    scale, survival = blocks.H**-0.5, 1.0 - blocks.rate
    parts_HT: list[jax.Array] = []
    dk_SL = dv_SL = 0.0
    sums[...] = jnp.zeros(sums.shape, jnp.float32)
    for row, head, same_ST in blocks.squares(down, across):
        q_TL, k_SL, v_SL = (qkv[i, row] for i in range(3))
        q_TL, dy_TL = blocks.only(q_TL, head), blocks.only(dy[row], head)
        probabilities_ST = jnp.exp2(blocks.scores(k_SL, q_TL, same_ST) - lse[row, 0, pl.ds(head, 1)])
        dropped_ST, dprobabilities_ST = probabilities_ST, _product(v_SL, dy_TL, 1, 1)
        if blocks.rate:
            kept_ST = blocks.kept(seeds, row, head)
            dropped_ST = jnp.where(kept_ST, dropped_ST * (1.0 / survival), 0.0)
            dprobabilities_ST = jnp.where(kept_ST, dprobabilities_ST * (1.0 / survival), 0.0)
        # Of a softmax: the gradient of each score is p·(dp - Σ p·dp), and that sum is y·dy.
        both_LT = (y[row].astype(jnp.float32) * dy[row].astype(jnp.float32)).T
        sum_1T = jnp.sum(blocks.of_head(both_LT, head), axis=0, keepdims=True)
        dscores_ST = (probabilities_ST * (dprobabilities_ST - sum_1T)).astype(blocks.dtype)
        dv_SL += _product(dropped_ST.astype(blocks.dtype), dy_TL, 1, 0)
        dk_SL += _product(dscores_ST, q_TL, 1, 0)
        parts_HT.append(blocks.of_head(_product(k_SL, dscores_ST, 0, 0), head))
        if head == blocks.heads - 1:
            dq_TL = jnp.concatenate(parts_HT, axis=0).T
            for i, gradient_TL in enumerate((dq_TL * scale, dk_SL * scale, dv_SL)):
                dqkv[i, row] = gradient_TL.astype(blocks.dtype)
                sums[i, 0] += jnp.sum(gradient_TL, axis=0, keepdims=True)
            parts_HT, dk_SL, dv_SL = [], 0.0, 0.0
