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

from electramed_jax.config.pretrain import ModelConfig, ObjectiveConfig
from electramed_jax.model import masking
from electramed_jax.model.encoder import Embeddings, Encoder, embed
from electramed_jax.model.heads import DiscriminatorHead, TokenHead, mask_padded_vocab, negative_log_likelihood
from electramed_jax.model.two_tower import TwoTowerGenerator


class Discriminator(Encoder):
    """The encoder that downstream tasks use, with its replaced-token head."""

    def __init__(self, config: ModelConfig, *, with_corrective_head: bool = False, rngs: nnx.Rngs):
        super().__init__(config.discriminator, config, config.embedding_size, rngs=rngs)
        self.head = DiscriminatorHead(config, rngs=rngs)
        if with_corrective_head:
            self.corrective_head = TokenHead(config, config.hidden_size, config.embedding_size, rngs=rngs)
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
        self.head = TokenHead(config, config.generator.hidden_size, E, rngs=rngs)


class Electra(nnx.Module):
    """Both networks and their shared embeddings. It holds only `Param`s; dropout keys are arguments of each call."""

    def __init__(self, config: ModelConfig, objective: ObjectiveConfig, *, rngs: nnx.Rngs):
        """Initializes all parameters: sizes and numerics by `config`, networks and heads by `objective`."""
        self.config = config
        self.embeddings = Embeddings(config, config.embedding_size, rngs=rngs)
        self.discriminator = Discriminator(config, with_corrective_head=objective.has_corrective_head, rngs=rngs)
        if objective.kind == "electric":
            self.generator: Generator | TwoTowerGenerator = TwoTowerGenerator(config, rngs=rngs)
        elif objective.kind != "uniform":  # replacements are then sampled uniformly
            self.generator = Generator(config, rngs=rngs)

    def generator_logits(
        self, masked: masking.MaskedTokens, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits float32[B, M, V] of the masked positions; all equal without a generator."""
        if not hasattr(self, "generator"):
            B, M = masked.positions_BM.shape
            return mask_padded_vocab(jnp.zeros((B, M, self.config.padded_vocab_size)), self.config.vocab_size)
        return self.token_logits(self.generator_hidden(masked.input_ids_BT, structure, key), masked.positions_BM)

    def generator_hidden(
        self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns the generator's last hidden states [B, T, D]; of a generator with two towers [B, T, 2 D]."""
        encoder = self.discriminator if self.config.tying == "all" else self.generator
        return encoder.encode(embed(self._generator_tables(), ids_BT, structure), structure.segments_BT, key)

    def token_logits(self, h_BTD: jax.Array, positions_BM: jax.Array) -> jax.Array:
        """Returns the generator's logits float32[B, M, V] at these positions, from its hidden states."""
        return self.generator.head(masking.gather_positions(h_BTD, positions_BM), self._generator_tables()["word"])

    def token_nll(self, h_BTD: jax.Array, ids_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns -log q(token) of every token, float32[B, T], and whether it is the most likely one, bool[B, T].

        The logits of one row exist at a time, in the backward pass too: [T, V] instead of [B, T, V].

        Args:
          h_BTD: from `generator_hidden`.
          ids_BT: the tokens.
        """
        word_VE = self._generator_tables()["word"]

        def nll_of_row(row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            h_TD, ids_T = row
            logits_1TV = self.generator.head(h_TD[None], word_VE)
            nll_1T = negative_log_likelihood(logits_1TV, ids_T[None])
            return nll_1T[0], jnp.argmax(logits_1TV[0], axis=-1) == ids_T

        return jax.lax.map(jax.checkpoint(nll_of_row), (h_BTD, ids_BT))

    def _generator_tables(self) -> dict[str, Any]:
        return (self.generator if self.config.tying == "none" else self).embeddings.as_dict()

    def discriminator_hidden(
        self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns the discriminator's last hidden states [B, T, D], the input of downstream heads."""
        tables = self._discriminator_tables()
        return self.discriminator.encode(embed(tables, ids_BT, structure), structure.segments_BT, key)

    def _discriminator_tables(self) -> dict[str, Any]:
        tables = self.embeddings.as_dict()
        if self.config.tying == "gradient_disentangled":
            delta = self.discriminator.embedding_delta.as_dict()
            tables = jax.tree.map(lambda shared, added: jax.lax.stop_gradient(shared) + added, tables, delta)
        return tables

    def discriminator_logits(
        self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits float32[B, T]. Above 0, the token is more likely replaced than original."""
        return self.replaced_logits(self.discriminator_hidden(ids_BT, structure, key))

    def replaced_logits(self, h_BTD: jax.Array) -> jax.Array:
        """Returns the logits of `discriminator_logits` from the hidden states of `discriminator_hidden`."""
        return self.discriminator.head(h_BTD)

    def corrective_logits(self, h_BTD: jax.Array, positions_BM: jax.Array) -> jax.Array:
        """Returns logits float32[B, M, V] of the original tokens at these positions.

        Args:
          h_BTD: from `discriminator_hidden`.
          positions_BM: int32[B, M].
        """
        word_VE = self._discriminator_tables()["word"]
        return self.discriminator.corrective_head(masking.gather_positions(h_BTD, positions_BM), word_VE)
