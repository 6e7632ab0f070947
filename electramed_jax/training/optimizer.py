"""Adam as google-research/electra has it, and LAMB for large batches, from optax's parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import OptimizerConfig

# Weights and tables decay; layer norms and biases, the generator's output bias among them, do not.
DECAY_RULES = tree_rules.RuleTable(
    "weight decay",
    ((r"kernel|word|position|token_type", True), (r"scale|bias|output_bias", False)),
)


# Leading axes along which one array holds several matrices, each of which LAMB scales by itself.
STACKED_AXES = tree_rules.RuleTable(
    "trust ratio",
    (
        (r"layers/attention/qkv/kernel", (0, 2)),  # [L, D, 3, N, H]: query, key and value of each layer
        (r"layers/(?:attention/out|feed_forward/up|feed_forward/down)/kernel", (0,)),
        (r"(?:project|head/\w+)/kernel|word|position|token_type", ()),
    ),
)


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> Callable[[jax.Array | int], jax.Array]:
    """The learning rate of step t, counted from 0: peak · (1 - t/total)^power · min(1, t/warm-up).

    Warm-up multiplies the decay, so the first step's rate is 0 and the peak is never quite reached, as in
    google-research/electra model/optimization.py:36-45. No warm-up is a factor of 1 (there, 0/0).
    """

    warmup = config.get_warmup_steps(total_steps)

    def learning_rate(step: jax.Array | int) -> jax.Array:
        t = jnp.minimum(jnp.asarray(step, jnp.float32), total_steps)
        decayed = config.learning_rate * (1.0 - t / total_steps) ** config.decay_power
        return decayed * jnp.minimum(1.0, t / warmup) if warmup else decayed

    return learning_rate


def make_optimizer(
    config: OptimizerConfig, total_steps: int, *scales: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Clip the global norm, Adam's direction, decoupled decay (LAMB: the trust ratio), `scales`, learning rate."""

    def decays(params: Any) -> Any:
        return tree_rules.map_named(lambda name, _: DECAY_RULES(name), params)

    adam = {"adam": scale_by_adam, "lamb": optax.scale_by_adam}[config.kind]
    steps = [
        optax.clip_by_global_norm(config.clip_norm),
        adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
    ]
    if config.kind == "lamb":
        steps.append(optax.masked(scale_by_trust_ratio(), decays))  # what does not decay is not scaled, either
    return optax.chain(*steps, *scales, optax.scale_by_learning_rate(learning_rate_schedule(config, total_steps)))


class AdamState(NamedTuple):
    """First and second moments, each shaped like the parameters."""

    mu: Any
    nu: Any


def scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """m / (sqrt(v) + epsilon) with uncorrected moments.

    optax's `scale_by_adam` always divides the moments by 1 - beta^t; ELECTRA, like BERT, does not, which
    makes early steps smaller.
    """

    def init(params: Any) -> AdamState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(zeros, jax.tree.map(jnp.copy, zeros))

    def update(gradients: Any, state: AdamState, params: Any = None) -> tuple[Any, AdamState]:
        del params
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * jnp.square(g), state.nu, gradients)
        direction = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return direction, AdamState(mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """LAMB's last step: scales a matrix's update to the norm of the matrix; where either norm is 0, by 1.

    Source: You et al. 2020, algorithm 2. `optax.scale_by_trust_ratio` takes one norm an array; ours hold all
    layers of the stack, and query, key and value, in one.
    """

    def scale(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
        inner = tuple(axis for axis in range(param.ndim) if axis not in STACKED_AXES(name))

        def norm(x: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.sum(jnp.square(x), axis=inner, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        usable = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(usable, param_norm / jnp.where(usable, update_norm, 1.0), 1.0)

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        named = tree_rules.named_leaves(params)
        return tree_rules.map_named(lambda name, leaf: scale(name, leaf, named[name]), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
