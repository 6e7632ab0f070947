"""What the forward pass keeps for the backward pass, where layers are rematerialised: arrays marked by name."""

from __future__ import annotations

import jax
from jax.ad_checkpoint import checkpoint_name

CHECKPOINT_NAME = "saved"

REMAT_POLICIES = {
    "full": jax.checkpoint_policies.nothing_saveable,  # least memory: each block is computed again
    "dots": jax.checkpoint_policies.save_only_these_names(
        CHECKPOINT_NAME
    ),  # keep products with weights, and attention's result
}


def save_for_backward(x: jax.Array) -> jax.Array:
    """x, kept by the policy "dots": what is dear to compute again and needed for gradients."""
    return checkpoint_name(x, CHECKPOINT_NAME)
