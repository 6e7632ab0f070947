"""Embeddings, and an encoder over them: a stack of post-layer-norm transformer blocks, scanned or unrolled."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.pretrain import EncoderConfig, ModelConfig
from electramed_jax.model import masking
from electramed_jax.model.attention import Direction, SelfAttention
from electramed_jax.model.kernels import gelu
from electramed_jax.model.layers import (
    TABLE_STDDEV,
    Dense,
    LayerNorm,
    add_and_norm,
    biased_gelu,
    dropout,
    glorot_uniform,
    layer_norm,
    split_key,
    truncated_normal,
    unstack,
)
from electramed_jax.model.ops import cpu_matmul, dropout_bits
from electramed_jax.model.ops.remat import REMAT_POLICIES, save_for_backward


class FeedForward(nnx.Module):
    """Two dense layers with an exact GELU between, dropout, residual and layer norm."""

    def __init__(self, sizes: EncoderConfig, config: ModelConfig, *, rngs: nnx.Rngs):
        D, F = sizes.hidden_size, sizes.intermediate_size
        self.dropout_rate = config.dropout
        self.use_gelu_kernel, self.use_norm_kernel = config.uses_kernel("gelu"), config.uses_kernel("residual_norm")
        dense = functools.partial(
            Dense,
            rngs=rngs,
            dtype=jnp.dtype(config.compute_dtype),
            initializer=truncated_normal(config.kernel_stddev),
        )
        self.up = dense("btd,df->btf", (D, F), (F,))
        self.down = dense("btf,fd->btd", (F, D), (D,))
        self.norm = LayerNorm(D)

    @jax.named_scope("feed_forward")
    def __call__(self, x_BTD: jax.Array, seeds_2B: jax.Array | None) -> jax.Array:
        """Returns the layer's output [B, T, D]. Without seeds nothing is dropped."""
        product_BTF, bias_F = save_for_backward(self.up.matmul(x_BTD)), self.up.bias[...]
        if self.use_gelu_kernel and gelu.supports(x_BTD.shape[1], len(bias_F), product_BTF.dtype):
            y_BTF = gelu.biased_gelu(product_BTF, bias_F)
        else:
            y_BTF = biased_gelu(product_BTF, bias_F)
        return add_and_norm(
            x_BTD, self.down, y_BTF, self.norm, self.dropout_rate, seeds_2B, use_kernel=self.use_norm_kernel
        )


class DropoutSeeds(NamedTuple):
    """Seeds of the three dropouts of a block, per row and, for attention probabilities, per head. None: no dropout."""

    probabilities_2BN: jax.Array | None = None
    attention_2B: jax.Array | None = None
    feed_forward_2B: jax.Array | None = None


def dropout_seeds_for_block(key: jax.Array, batch_size: int, num_heads: int) -> DropoutSeeds:
    """Returns the seeds of one block."""
    attention_key, feed_forward_key = jax.random.split(key)
    probability_key, output_key = jax.random.split(attention_key)
    return DropoutSeeds(
        dropout_bits.dropout_seeds(probability_key, (batch_size, num_heads)),
        dropout_bits.dropout_seeds(output_key, (batch_size,)),
        dropout_bits.dropout_seeds(feed_forward_key, (batch_size,)),
    )


class Block(nnx.Module):
    """Transformer block: attention, then feed-forward."""

    def __init__(self, sizes: EncoderConfig, config: ModelConfig, *, direction: Direction, rngs: nnx.Rngs):
        self.attention = SelfAttention(sizes, config, direction=direction, rngs=rngs)
        self.feed_forward = FeedForward(sizes, config, rngs=rngs)

    def __call__(self, x_BTD: jax.Array, segments_BT: jax.Array, seeds: DropoutSeeds) -> jax.Array:
        """Returns the block's output [B, T, D]."""
        x_BTD = self.attention(x_BTD, segments_BT, seeds.probabilities_2BN, seeds.attention_2B)
        return self.feed_forward(x_BTD, seeds.feed_forward_2B)


def stack_blocks(sizes: EncoderConfig, config: ModelConfig, *, direction: Direction = "both", rngs: nnx.Rngs) -> Block:
    """Returns one `Block` with parameters that have a leading axis of `num_layers`."""

    @nnx.split_rngs(splits=sizes.num_layers)
    @nnx.vmap(in_axes=0, out_axes=0, transform_metadata={nnx.PARTITION_NAME: None})
    def make(rngs: nnx.Rngs) -> Block:
        return Block(sizes, config, direction=direction, rngs=rngs)

    return make(rngs)


def run_blocks(
    blocks: Block,
    x_BTD: jax.Array,
    segments_BT: jax.Array,
    *,
    num_layers: int,
    remat: str,
    scan: bool,
    key: jax.Array | None,
) -> jax.Array:
    """Applies stacked blocks one after the other. Returns the last hidden states [B, T, D].

    With `scan` the compiler sees one block, at any depth. Without it the program is unrolled: residuals of the backward
    pass need not be copied into a stack and back, but compilation takes longer.
    """
    seeds = DropoutSeeds()
    if key is not None:
        # For all blocks at once: one generator per block and dropout would take a quarter of the compilation time.
        draw = functools.partial(dropout_seeds_for_block, batch_size=len(x_BTD), num_heads=blocks.attention.num_heads)
        seeds = jax.vmap(draw)(jax.random.split(key, num_layers))

    def apply(x_BTD: jax.Array, block: Block, seeds: DropoutSeeds) -> jax.Array:
        return block(x_BTD, segments_BT, seeds)

    if remat != "none":
        # Inside a scan, common-subexpression elimination cannot undo the recomputation: no barriers are needed.
        apply = nnx.remat(apply, prevent_cse=not scan, policy=REMAT_POLICIES[remat])
    if not scan:
        for i, block in enumerate(_unstack_blocks(blocks, num_layers)):
            x_BTD = apply(x_BTD, block, jax.tree.map(lambda stacked, i=i: stacked[i], seeds))
        return x_BTD
    metadata = {nnx.PARTITION_NAME: None}
    scanned = nnx.scan(apply, in_axes=(nnx.Carry, 0, 0), out_axes=nnx.Carry, transform_metadata=metadata)
    return scanned(x_BTD, blocks, seeds)


def _unstack_blocks(blocks: Block, num_layers: int) -> list[Block]:
    graph, stacked = nnx.split(blocks)
    leaves, tree = jax.tree.flatten(stacked)
    layers = zip(*(unstack(leaf, num_layers) for leaf in leaves), strict=True)
    return [nnx.merge(graph, jax.tree.unflatten(tree, layer)) for layer in layers]


class Embeddings(nnx.Module):
    """Word, position and token-type tables and their layer norm. `embed` looks them up."""

    def __init__(self, config: ModelConfig, size: int, *, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param:
            return nnx.Param(truncated_normal(TABLE_STDDEV)(rngs.params(), (rows, size), jnp.float32))

        self.word = table(config.padded_vocab_size)
        self.position = table(config.max_positions)
        self.token_type = table(2)
        self.norm = LayerNorm(size)

    def as_dict(self) -> dict[str, Any]:
        """Returns the parameters as nested dicts of arrays."""
        return nnx.to_pure_dict(nnx.state(self, nnx.Param))


@jax.named_scope("embedding")
def embed(tables: dict, ids_BT: jax.Array, structure: masking.PackedSegments) -> jax.Array:
    """Returns the layer-normed sum of word, position and token-type embeddings, float32[B, T, E]."""
    # A select, not a look-up: the gradient of a look-up would scatter all tokens into two rows.
    first_E, second_E = tables["token_type"]
    types_BTE = jnp.where(structure.token_types_BT[..., None] == 0, first_E[None, None], second_E[None, None])
    x_BTE = tables["word"][ids_BT] + tables["position"][structure.positions_BT] + types_BTE
    return layer_norm(x_BTE, tables["norm"]["scale"], tables["norm"]["bias"])


class Encoder(nnx.Module):
    """Encoder over embeddings: a projection if the widths differ, and a stack of blocks."""

    def __init__(
        self,
        sizes: EncoderConfig,
        config: ModelConfig,
        embedding_size: int,
        *,
        direction: Direction = "both",
        rngs: nnx.Rngs,
    ):
        self.config, self.num_layers = config, sizes.num_layers
        if embedding_size != sizes.hidden_size:
            self.project = Dense(
                "bte,ed->btd",
                (embedding_size, sizes.hidden_size),
                (sizes.hidden_size,),
                rngs=rngs,
                dtype=jnp.dtype(config.compute_dtype),
                initializer=glorot_uniform,
            )
        self.layers = stack_blocks(sizes, config, direction=direction, rngs=rngs)

    def encode(self, x_BTE: jax.Array, segments_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """Returns hidden states [B, T, D] in the dtype of activations. Without a key nothing is dropped."""
        embedding_key, blocks_key = split_key(key, 2)
        seeds_2B = dropout_bits.dropout_seeds(embedding_key, x_BTE.shape[:1])
        dtype = cpu_matmul.activation_dtype(jnp.dtype(self.config.compute_dtype))
        x = dropout(x_BTE, self.config.dropout, seeds_2B).astype(dtype)
        if hasattr(self, "project"):
            x = self.project(x)
        return run_blocks(
            self.layers,
            x,
            segments_BT,
            num_layers=self.num_layers,
            remat=self.config.remat,
            scan=self.config.scan_layers is True,
            key=blocks_key,
        )
