"""The generator of Electric: a cloze model of two towers that predicts every token of a row in one pass.

Source: Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.3;
google-research/electra run_pretraining.py, TwoTowerClozeTransformer.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.model.encoder import Embeddings, Encoder
from electramed_jax.model.heads import TokenHead
from electramed_jax.model.layers import split_key


class TwoTowerGenerator(nnx.Module):
    """Predicts each token from the tokens before it and the tokens after it, which two encoders read separately."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        E = config.generator_embedding_size
        if config.tying == "none":
            self.embeddings = Embeddings(config, E, rngs=rngs)
        self.left_to_right = Encoder(config.generator, config, E, direction="left_to_right", rngs=rngs)
        self.right_to_left = Encoder(config.generator, config, E, direction="right_to_left", rngs=rngs)
        self.head = TokenHead(config, 2 * config.generator.hidden_size, E, rngs=rngs)

    def encode(self, x_BTE: jax.Array, segments_BT: jax.Array, key: jax.Array | None) -> jax.Array:
        """Returns hidden states [B, T, 2 D] that do not depend on the token at their own position.

        Those of a document's first and last token come from its neighbours in the row; both are special tokens, which
        are never predicted.
        """
        left_key, right_key = split_key(key, 2)
        before_BTD = jnp.roll(self.left_to_right.encode(x_BTE, segments_BT, left_key), 1, axis=1)
        after_BTD = jnp.roll(self.right_to_left.encode(x_BTE, segments_BT, right_key), -1, axis=1)
        return jnp.concatenate([before_BTD, after_BTD], axis=-1)
