"""Layer-wise learning-rate decay for fine-tuning: lower layers get a smaller learning rate."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from electramed_jax.common import tree_rules
from electramed_jax.config.finetune import EXACT, GOOGLE

EMBEDDINGS, LAYERS, HEAD = "embeddings", "layers", "head"
DEPTH_RULES = tree_rules.RuleTable(
    "layer-wise decay",
    (
        (r"embeddings/.+|encoder/project/.+", EMBEDDINGS),
        (r"encoder/layers/.+", LAYERS),  # [L, ...]
        (r"head/.+", HEAD),
    ),
)


def depth_factors(decay: float, num_layers: int, rule: str = EXACT) -> dict[str, Any]:
    """Returns the factors of the learning rate: of the embeddings, of each layer (float32[L]), of the head.

    Args:
      decay: factor of a layer relative to the layer above it.
      num_layers: L.
      rule: "exact": embeddings have depth 0, layer i has i + 1, the head L + 1; the factor is decay^(L + 1 - depth).
        "google": google-research/electra's (model/optimization.py, _get_layer_lrs), where the head is one deeper, so
        that the last layer has decay^2 and none has decay^1.
    """
    top = num_layers + 1 + (rule == GOOGLE)
    layers = np.asarray([decay ** (top - depth) for depth in range(1, num_layers + 1)], np.float32)
    return {EMBEDDINGS: decay**top, LAYERS: layers, HEAD: 1.0}


def scale_by_depth(
    decay: float, num_layers: int, rule: str = EXACT, *, freeze_layers: int = 0
) -> optax.GradientTransformation:
    """Multiplies the updates of each parameter of a fine-tuned model by its `depth_factors`; 0 if it is frozen."""
    factors = depth_factors(decay, num_layers, rule)
    if freeze_layers:
        factors = {name: factor * _trained(freeze_layers, num_layers)[name] for name, factor in factors.items()}
    return _scale(factors)


def freeze(layers: int, num_layers: int) -> optax.GradientTransformation:
    """Sets the gradients of the embeddings and of the lowest layers to 0."""
    return _scale(_trained(layers, num_layers))


def _trained(freeze_layers: int, num_layers: int) -> dict[str, Any]:
    """Returns 1 for trained and 0 for frozen parameters, in the form of `depth_factors`."""
    return {EMBEDDINGS: 0.0, LAYERS: np.float32(np.arange(num_layers) >= freeze_layers), HEAD: 1.0}


def _scale(factors: dict[str, Any]) -> optax.GradientTransformation:
    def scale(name: str, update: Any) -> Any:
        factor = factors[DEPTH_RULES(name)]
        if np.ndim(factor):
            factor = jnp.asarray(factor).reshape((-1,) + (1,) * (update.ndim - 1))
        return update * factor

    def update(updates: Any, state: optax.EmptyState, params: Any = None) -> tuple[Any, optax.EmptyState]:
        del params
        return tree_rules.map_named(scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
