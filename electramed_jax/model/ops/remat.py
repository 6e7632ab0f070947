"""Rematerialization policies: what the forward pass saves for the backward pass."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

CHECKPOINT_NAME = "saved"

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # least memory: each block is recomputed
    "dots": jax.checkpoint_policies.save_only_these_names(CHECKPOINT_NAME),  # `save_for_backward` arrays are saved
}


def save_for_backward(x: jax.Array) -> jax.Array:
    """Marks x as saved by the policy "dots": products with weights, and the result of attention."""
    return checkpoint_name(x, CHECKPOINT_NAME)
