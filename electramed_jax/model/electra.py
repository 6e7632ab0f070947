"""The generator-discriminator pair.

Names in this project and elsewhere:

    ours                      paper              google-research/electra           Hugging Face
    embeddings                x                  electra/embeddings                electra.embeddings
    discriminator             D                  electra/encoder                   ElectraForPreTraining
    generator                 G                  generator/encoder                 ElectraForMaskedLM
    */project                 -                  embeddings_project                embeddings_project
    discriminator/head/logit  sigmoid(w·h)       discriminator_predictions/dense_1 ...dense_prediction
    generator/head            e(x)·h             generator_predictions             generator_predictions

`Electra` owns the shared embeddings and passes arrays to its two encoders. Plain `jax.jit` would treat a flax module
that two parents share as two sets of parameters, silently untied.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.pretrain import EncoderConfig, ModelConfig
from electramed_jax.model import masking
from electramed_jax.model.encoder import run_blocks, stack_blocks
from electramed_jax.model.layers import (
    TABLE_STDDEV,
    Dense,
    LayerNorm,
    dropout,
    einsum_f32,
    gelu,
    glorot_uniform,
    layer_norm,
    split_key,
    truncated_normal,
)
from electramed_jax.model.ops import cpu_matmul, dropout_bits
from electramed_jax.model.ops.numerics import MASK_VALUE


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

    def __init__(self, sizes: EncoderConfig, config: ModelConfig, embedding_size: int, *, rngs: nnx.Rngs):
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
        self.layers = stack_blocks(sizes, config, rngs=rngs)

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


class DiscriminatorHead(nnx.Module):
    """Replaced-token head: one float32 logit per token."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        D, dtype, initializer = (
            config.hidden_size,
            jnp.dtype(config.compute_dtype),
            truncated_normal(config.kernel_stddev),
        )
        self.dense = Dense("btd,de->bte", (D, D), (D,), rngs=rngs, dtype=dtype, initializer=initializer)
        self.logit = Dense("btd,de->bte", (D, 1), (1,), rngs=rngs, dtype=jnp.float32, initializer=glorot_uniform)

    def __call__(self, h_BTD: jax.Array) -> jax.Array:
        """Returns logits float32[B, T]."""
        return self.logit(gelu(self.dense(h_BTD)))[..., 0]


class GeneratorHead(nnx.Module):
    """Masked language model head, tied to the word table: float32 logits over the padded vocabulary."""

    def __init__(self, config: ModelConfig, hidden_size: int, embedding_size: int, *, rngs: nnx.Rngs):
        self.vocab_size, self.dtype = config.vocab_size, jnp.dtype(config.compute_dtype)
        D, E = hidden_size, embedding_size
        initializer = truncated_normal(config.kernel_stddev)
        self.dense = Dense("bmd,de->bme", (D, E), (E,), rngs=rngs, dtype=self.dtype, initializer=initializer)
        self.norm = LayerNorm(E)
        self.output_bias = nnx.Param(jnp.zeros((config.padded_vocab_size,), jnp.float32))

    @jax.named_scope("generator_head")
    def __call__(self, h_BMD: jax.Array, word_VE: jax.Array) -> jax.Array:
        """Returns logits float32[B, M, V] for hidden states at gathered positions."""
        x_BME = self.norm(gelu(self.dense(h_BMD)))
        if cpu_matmul.use_cpu_matmul(self.dtype):
            flat = cpu_matmul.matmul(x_BME.reshape(-1, x_BME.shape[-1]), word_VE, True)
            logits_BMV = flat.reshape(*x_BME.shape[:2], -1)
        else:
            logits_BMV = einsum_f32("bme,ve->bmv", x_BME, word_VE, self.dtype)
        return mask_padded_vocab(logits_BMV + self.output_bias[...][None, None, :], self.vocab_size)


def mask_padded_vocab(logits_BMV: jax.Array, vocab_size: int) -> jax.Array:
    """Sets the logits of padded vocabulary entries to MASK_VALUE, so that they are never sampled."""
    return jnp.where(jnp.arange(logits_BMV.shape[-1])[None, None, :] < vocab_size, logits_BMV, MASK_VALUE)


class Discriminator(Encoder):
    """The encoder that downstream tasks use, with its replaced-token head."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        super().__init__(config.discriminator, config, config.embedding_size, rngs=rngs)
        self.head = DiscriminatorHead(config, rngs=rngs)
        if config.tying == "gradient_disentangled":
            # As in DeBERTaV3: the discriminator trains a delta to the generator's embeddings, initialized to zero.
            self.embedding_delta = Embeddings(config, config.embedding_size, rngs=rngs)
            nnx.update(self.embedding_delta, jax.tree.map(jnp.zeros_like, nnx.state(self.embedding_delta)))


class Generator(Encoder):
    """The small masked language model. With tying "all" it is only a head on the discriminator's encoder."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        E = config.generator_embedding_size
        if config.tying == "none":
            self.embeddings = Embeddings(config, E, rngs=rngs)
        if config.tying != "all":
            super().__init__(config.generator, config, E, rngs=rngs)
        self.head = GeneratorHead(config, config.generator.hidden_size, E, rngs=rngs)


class Electra(nnx.Module):
    """Both networks and their shared embeddings. It holds only `Param`s; dropout keys are arguments of each call."""

    def __init__(self, config: ModelConfig, *, with_generator: bool = True, rngs: nnx.Rngs):
        """`with_generator=False` omits the generator: replacements are then sampled uniformly."""
        self.config = config
        self.embeddings = Embeddings(config, config.embedding_size, rngs=rngs)
        self.discriminator = Discriminator(config, rngs=rngs)
        if with_generator:
            self.generator = Generator(config, rngs=rngs)

    def generator_logits(
        self, masked: masking.MaskedTokens, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits float32[B, M, V] of the masked positions; all equal without a generator."""
        if not hasattr(self, "generator"):
            B, M = masked.positions_BM.shape
            return mask_padded_vocab(jnp.zeros((B, M, self.config.padded_vocab_size)), self.config.vocab_size)
        tables = (self.generator if self.config.tying == "none" else self).embeddings.as_dict()
        encoder = self.discriminator if self.config.tying == "all" else self.generator
        h_BTD = encoder.encode(embed(tables, masked.input_ids_BT, structure), structure.segments_BT, key)
        return self.generator.head(masking.gather_positions(h_BTD, masked.positions_BM), tables["word"])

    def discriminator_hidden(
        self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns the discriminator's last hidden states [B, T, D], the input of downstream heads."""
        tables = self.embeddings.as_dict()
        if self.config.tying == "gradient_disentangled":
            delta = self.discriminator.embedding_delta.as_dict()
            tables = jax.tree.map(lambda shared, added: jax.lax.stop_gradient(shared) + added, tables, delta)
        return self.discriminator.encode(embed(tables, ids_BT, structure), structure.segments_BT, key)

    def discriminator_logits(
        self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits float32[B, T]. Above 0, the token is more likely replaced than original."""
        return self.discriminator.head(self.discriminator_hidden(ids_BT, structure, key))
