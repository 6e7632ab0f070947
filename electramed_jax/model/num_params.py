"""Number of parameters of the discriminator, computed from the sizes."""

from __future__ import annotations

from electramed_jax.config.pretrain import ModelConfig


def count_discriminator_params(model: ModelConfig) -> int:
    """Returns the parameters of the discriminator: embeddings with padded word table, encoder and head."""
    E, D, F = model.embedding_size, model.hidden_size, model.intermediate_size
    rows = model.padded_vocab_size + model.max_positions + 2  # token types
    embeddings = rows * E + 2 * E  # layer norm
    project = E * D + D if E != D else 0
    attention = 4 * (D * D + D)
    feed_forward = 2 * D * F + F + D
    layer_norms = 2 * 2 * D
    head = D * D + D + D + 1
    return embeddings + project + model.num_layers * (attention + feed_forward + layer_norms) + head
