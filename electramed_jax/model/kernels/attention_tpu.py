"""Attention within documents as TPU kernels; see attention.py.

In rows of up to `MAX_ROW_LENGTH` tokens the T x T square of a head fits into fast memory. So no online softmax is
needed, and one backward kernel computes the square once for the gradients of queries, keys and values. Squares are
transposed, keys down and queries across (`ST`): statistics of a query are then a row of lanes, and a sum over keys is a
sum of vectors. Heads narrower than the 128 lanes of a register are processed in groups that fill one, so that
projections are read and written without a transpose.

libtpu compiles these kernels for v4, v5e, v5p, v6e and tpu7x; they have not run on a chip yet.
"""

from __future__ import annotations

import collections
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from electramed_jax.model.kernels.attention_spec import AttentionSpec
from electramed_jax.model.kernels.platform import LANES, shard_over_tensor
from electramed_jax.model.ops import dropout_bits
from electramed_jax.model.ops.numerics import MASK_VALUE
from electramed_jax.model.ops.remat import save_for_backward

MAX_ROW_LENGTH = 512  # tokens; the code for a square is unrolled and grows with it
LOG2E = math.log2(math.e)


def supports(
    row_length: int,
    num_heads: int,
    head_size: int,
    *,
    paired_dropout: bool = False,  # noqa: ARG001 - both forms of dropout are supported
) -> bool:
    """Returns whether the kernels support these sizes of one device's shard."""
    width = num_heads * head_size
    in_groups = width % LANES == 0 and LANES % head_size == 0
    return row_length % LANES == 0 and row_length <= MAX_ROW_LENGTH and (in_groups or width < LANES)


def attend(
    x_BTD: jax.Array,
    kernel_D3F: jax.Array,
    bias_3F: jax.Array,
    segments_BT: jax.Array,
    seeds_2BN: jax.Array,
    spec: AttentionSpec,
) -> jax.Array:
    """Computes `attention.attend` on a TPU."""
    qkv_3BTF = jnp.einsum("btd,dcf->cbtf", x_BTD, kernel_D3F)
    return _attend(qkv_3BTF, bias_3F, segments_BT, seeds_2BN, spec)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    qkv_3BTF: jax.Array, bias_3F: jax.Array, segments_BT: jax.Array, seeds_2BN: jax.Array, spec: AttentionSpec
) -> jax.Array:
    return _forward(qkv_3BTF, bias_3F, segments_BT, seeds_2BN, spec)[0]


# Partition specs of the kernels' arrays along `tensor`.
QKV, SEGMENTS, SEEDS = jax.P(None, None, None, "tensor"), jax.P(), jax.P(None, None, "tensor")
Y, LSE = jax.P(None, None, "tensor"), jax.P(None, "tensor")


def _forward(
    qkv: jax.Array, bias: jax.Array, segments: jax.Array, seeds: jax.Array, spec: AttentionSpec
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    call = functools.partial(_call_forward, spec=spec)
    qkv = save_for_backward(qkv + bias.astype(qkv.dtype)[:, None, None, :])
    y, lse = shard_over_tensor(call, (QKV, SEGMENTS, SEEDS), (Y, LSE))(qkv, segments, seeds)
    y, lse = save_for_backward(y), save_for_backward(lse)
    return y, (qkv, bias, segments, seeds, y, lse)


def _backward(spec: AttentionSpec, residuals: tuple[jax.Array, ...], dy: jax.Array) -> tuple[jax.Array | None, ...]:
    qkv, bias, segments, seeds, y, lse = residuals
    call = functools.partial(_call_backward, spec=spec)
    sharded_call = shard_over_tensor(call, (QKV, SEGMENTS, SEEDS, Y, LSE, Y), (QKV, QKV))
    dqkv, dbias = sharded_call(qkv, segments, seeds, y, lse, dy)
    return dqkv, jnp.sum(dbias, axis=(1, 2)).astype(bias.dtype), None, None


_attend.defvjp(_forward, _backward)


# ---- blocks: some rows of the batch times one group of heads -----------------------------------------------


class _Blocks:
    """Block layout of one device's arrays. A program handles `rows` rows of one group of `heads` heads."""

    def __init__(self, qkv: jax.Array, spec: AttentionSpec):
        _, self.B, self.T, self.F = qkv.shape
        self.H, self.rate, self.dtype = spec.head_size, spec.dropout_rate, qkv.dtype
        self.paired_dropout = spec.paired_dropout
        self.interpret = spec.interpret is not None
        self.width = min(LANES, self.F)
        self.heads = self.width // self.H  # of a group
        self.groups = self.F // self.width
        # A program handles several short rows, up to the work of one long row.
        self.rows = next(n for n in range(max(1, MAX_ROW_LENGTH // self.T), 0, -1) if self.B % n == 0)

    def specs(self) -> dict[str, pl.BlockSpec]:
        """Returns the block spec of each kind of array."""
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
        """Returns the seeds, and the segments laid down the sublanes and across the lanes."""
        down = jnp.broadcast_to(segments[:, :, None], (self.B, self.T, LANES))
        return seeds.reshape(2, -1), down, segments[:, None, :]

    def call(
        self, body: Callable[..., None], name: str, inputs: list[str], outputs: Any, shapes: Any, num_products: int
    ) -> Callable[..., Any]:
        """Returns the kernel as a function of `inputs(...)` and the arrays whose kinds are `inputs`."""
        specs = self.specs()
        return pl.pallas_call(
            functools.partial(body, self),
            grid=(self.B // self.rows, self.groups),
            in_specs=[specs[kind] for kind in ["seeds", "down", "across", *inputs]],
            out_specs=jax.tree.map(specs.get, outputs),
            out_shape=shapes,
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
            name=name,
            metadata={"turns": str(self.B // self.rows * self.groups)},  # size of the grid, for aot/cost_model.py
            cost_estimate=self._cost(num_products),
            interpret=self.interpret,
        )

    def _cost(self, num_products: int) -> pl.CostEstimate:
        """Returns the cost of `num_products` matrix products with each square, and of moving their arrays."""
        squares = self.B * self.F // self.H * self.T**2
        bytes_moved = (num_products + 2) * self.B * self.T * self.F * self.dtype.itemsize
        return pl.CostEstimate(2 * num_products * squares * self.H, squares, bytes_moved)

    # The methods below are called inside the kernels.

    def squares(self, qkv: Any, down: Any, across: Any) -> Iterator[tuple[int, int, jax.Array]]:
        """Yields (row, head, scores float32[S, T]) of each square of the block.

        The products of some later squares are written before a square is used: libtpu runs them beside its softmax only
        in this order.
        """
        ahead: collections.deque[tuple[int, int, jax.Array]] = collections.deque()
        for row in range(self.rows):
            same_ST = jnp.tile(down[row], (1, self.T // LANES)) == across[row]
            for head in range(self.heads):
                ahead.append((row, head, self.scores(qkv[0, row], qkv[1, row], head, same_ST)))
                if len(ahead) > MAX_ROW_LENGTH // self.T:
                    yield ahead.popleft()
        yield from ahead

    def scores(self, q_TL: jax.Array, k_SL: jax.Array, head: int, same_ST: jax.Array) -> jax.Array:
        """Returns masked scores, scaled for a softmax to base 2."""
        scores_ST = _product(k_SL, self.zero_other_heads(q_TL, head), 1, 1) * (self.H**-0.5 * LOG2E)
        return jnp.where(same_ST, scores_ST, MASK_VALUE)

    def zero_other_heads(self, x_TL: jax.Array, head: int) -> jax.Array:
        """Returns x with the lanes of other heads set to zero. The matrix unit adds the zeros at no cost."""
        if self.heads == 1:
            return x_TL
        lane = jax.lax.broadcasted_iota(jnp.int32, x_TL.shape, 1)
        return jnp.where((lane >= head * self.H) & (lane < (head + 1) * self.H), x_TL, 0)

    def select_head(self, x_TL: jax.Array, head: int) -> jax.Array:
        """Returns the lanes of one head. The matrix unit streams them when they are the rows of a product."""
        return x_TL[:, head * self.H : (head + 1) * self.H]

    def keep_mask(self, seeds: Any, row: int, head: int) -> jax.Array:
        """Returns the dropout mask of a square, bool[S, T]; True is kept."""
        global_row = pl.program_id(0) * self.rows + row
        global_head = pl.program_id(1) * self.heads + head
        index = global_row * (self.groups * self.heads) + global_head
        # Integer sums have no order: query and seed are added up for a row of lanes instead of a square.
        keys = self.T // 2 if self.paired_dropout else self.T
        key = jax.lax.broadcasted_iota(jnp.int32, (keys, self.T), 0)
        query = jax.lax.broadcasted_iota(jnp.int32, (1, self.T), 1)
        counted = (key, query * self.T + seeds[0, index], seeds[1, index], self.rate)
        if self.paired_dropout:
            return jnp.concatenate(dropout_bits.paired_keep_masks(*counted), axis=0)
        return dropout_bits.keep_mask(*counted)


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)


# ---- forward ---------------------------------------------------------------------------------------------


def _call_forward(
    qkv: jax.Array, segments: jax.Array, seeds: jax.Array, *, spec: AttentionSpec
) -> tuple[jax.Array, jax.Array]:
    """Returns the result, [B, T, F], and the logarithm to base 2 of the softmax normalizers."""
    blocks = _Blocks(qkv, spec)
    B, T, F = qkv.shape[1:]
    y = jax.ShapeDtypeStruct((B, T, F), qkv.dtype)
    lse = jax.ShapeDtypeStruct((B, blocks.groups, blocks.heads, T), jnp.float32)
    call = blocks.call(_forward_body, "attention_forward", ["qkv"], ("y", "lse"), (y, lse), num_products=2)
    return tuple(call(*blocks.inputs(segments, seeds), qkv))


def _forward_body(blocks: _Blocks, seeds: Any, down: Any, across: Any, qkv: Any, y: Any, lse: Any) -> None:
    parts_HT: list[jax.Array] = []
    for row, head, scores_ST in blocks.squares(qkv, down, across):
        max_1T = jnp.max(scores_ST, axis=0, keepdims=True)
        weights_ST = jnp.exp2(scores_ST - max_1T)
        total_1T = jnp.sum(weights_ST, axis=0, keepdims=True)
        if blocks.rate:
            weights_ST = jnp.where(blocks.keep_mask(seeds, row, head), weights_ST, 0.0)
        y_HT = _product(blocks.select_head(qkv[2, row], head), weights_ST.astype(blocks.dtype), 0, 0)
        parts_HT.append(y_HT / (total_1T * (1.0 - blocks.rate)))
        lse[row, 0, pl.ds(head, 1)] = max_1T + jnp.log2(total_1T)
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
    spec: AttentionSpec,
) -> tuple[jax.Array, jax.Array]:
    """Returns the gradient of qkv, and its sums over the tokens of each block, float32[3, blocks, 1, F]."""
    blocks = _Blocks(qkv, spec)
    dqkv = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    sums = jax.ShapeDtypeStruct((3, blocks.B // blocks.rows, 1, blocks.F), jnp.float32)
    inputs = ["qkv", "y", "lse", "y"]
    call = blocks.call(_backward_body, "attention_backward", inputs, ("qkv", "sums"), (dqkv, sums), num_products=5)
    return tuple(call(*blocks.inputs(segments, seeds), qkv, y, lse, dy))


def _backward_body(
    blocks: _Blocks, seeds: Any, down: Any, across: Any, qkv: Any, y: Any, lse: Any, dy: Any, dqkv: Any, sums: Any
) -> None:
    survival = 1.0 - blocks.rate
    scale = blocks.H**-0.5 / survival
    gradients_HT: tuple[list[jax.Array], ...] = ([], [], [])  # of queries, keys and values: one item for each head
    sums[...] = jnp.zeros(sums.shape, jnp.float32)
    for row, head, scores_ST in blocks.squares(qkv, down, across):
        if head == 0:
            product_LT = (y[row].astype(jnp.float32) * dy[row].astype(jnp.float32)).T
        dkept_ST = _product(qkv[2, row], blocks.zero_other_heads(dy[row], head), 1, 1)
        probabilities_ST = jnp.exp2(scores_ST - lse[row, 0, pl.ds(head, 1)])
        kept_ST = probabilities_ST
        # Dropout divides kept probabilities and their gradients by `survival`. Here the much smaller gradients of
        # queries, keys and values are divided instead, which are linear in both.
        if blocks.rate:
            keep_ST = blocks.keep_mask(seeds, row, head)
            kept_ST = jnp.where(keep_ST, kept_ST, 0.0)
            dkept_ST = jnp.where(keep_ST, dkept_ST, 0.0)
        # Softmax: the gradient of a score is p·(dp - Σ p·dp), and the sum equals y·dy.
        sum_1T = jnp.sum(product_LT[head * blocks.H : (head + 1) * blocks.H], axis=0, keepdims=True) * survival
        dscores_ST = (probabilities_ST * (dkept_ST - sum_1T)).astype(blocks.dtype)
        q_TH, k_SH, dy_TH = (blocks.select_head(x, head) for x in (qkv[0, row], qkv[1, row], dy[row]))
        gradients_HT[2].append(_product(dy_TH, kept_ST.astype(blocks.dtype), 0, 1))
        gradients_HT[0].append(_product(k_SH, dscores_ST, 0, 0))
        gradients_HT[1].append(_product(q_TH, dscores_ST, 0, 1))
        if head == blocks.heads - 1:
            for i, factor in enumerate((scale, scale, 1.0 / survival)):
                gradient_TL = jnp.concatenate(gradients_HT[i], axis=0).T * factor
                dqkv[i, row] = gradient_TL.astype(blocks.dtype)
                sums[i, 0] += jnp.sum(gradient_TL, axis=0, keepdims=True)
            gradients_HT = ([], [], [])
