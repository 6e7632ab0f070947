"""Optimizers built from optax: Adam as in google-research/electra or in torch, LAMB, and Muon for hidden matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import OptimizerConfig
from electramed_jax.training.optimizers import muon

# Kernels and embedding tables decay; layer norms, biases, including the generator's output bias, and a CRF's transition
# scores do not.
DECAY_RULES = tree_rules.RuleTable(
    "weight decay",
    ((r"kernel|word|position|token_type", True), (r"scale|bias|output_bias|transitions", False)),
)


# Axes along which one array stacks several matrices. LAMB scales each matrix by itself.
STACKED_AXES = tree_rules.RuleTable(
    "trust ratio",
    (
        (r"layers/attention/qkv/kernel", (0, 2)),  # [L, D, 3, N, H]: query, key and value of each layer
        (r"layers/(?:attention/out|feed_forward/up|feed_forward/down)/kernel", (0,)),
        (r"(?:project|(?:corrective_)?head/\w+)/kernel|word|position|token_type", ()),
    ),
)


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> Callable[[jax.Array | int], jax.Array]:
    """Returns the learning rate as a function of the step t, from 0: peak · decay^power · min(1, t/warm-up).

    The decay is 1 until the fraction `decay_start` of the run, and falls linearly to 0 at its end: with the default, 0,
    it is 1 - t/total. Warm-up multiplies it, so the rate of step 0 is 0 and without a constant part the peak is never
    quite reached, as in google-research/electra model/optimization.py:36-45. Without warm-up that factor is 1 (there
    0/0).
    """
    warmup = config.get_warmup_steps(total_steps)

    def learning_rate(step: jax.Array | int) -> jax.Array:
        t = jnp.minimum(jnp.asarray(step, jnp.float32), total_steps)
        decay = 1.0 - t / total_steps
        if config.decay_start:
            decay = jnp.minimum(1.0, decay / (1.0 - config.decay_start))
        decayed = config.learning_rate * decay**config.decay_power
        return decayed * jnp.minimum(1.0, t / warmup) if warmup else decayed

    return learning_rate


def make_optimizer(
    config: OptimizerConfig, total_steps: int, *scales: optax.GradientTransformation, bias_correction: bool = False
) -> optax.GradientTransformation:
    """Returns the chain of global-norm clip, Adam or Muon, decoupled decay, LAMB's trust ratio, `scales` and rate.

    Args:
      bias_correction: divide Adam's moments by 1 - beta^t, as torch's AdamW does; LAMB always does.
    """

    def decay_mask(params: Any) -> Any:
        return tree_rules.map_named(lambda name, _: DECAY_RULES(name), params)

    def algorithms(params: Any) -> Any:
        return tree_rules.map_named(lambda name, _: "muon" if muon.is_hidden_matrix(name) else "adam", params)

    make_adam = optax.scale_by_adam if bias_correction or config.kind == "lamb" else scale_by_adam
    direction = make_adam(config.beta1, config.beta2, config.epsilon)
    if config.kind == "muon":
        direction = optax.partition({"muon": muon.scale_by_muon(config.muon_momentum), "adam": direction}, algorithms)
    transforms = [
        optax.clip_by_global_norm(config.clip_norm),
        direction,
        optax.add_decayed_weights(config.weight_decay, mask=decay_mask),
    ]
    if config.kind == "lamb":
        transforms.append(
            optax.masked(scale_by_trust_ratio(), decay_mask)
        )  # parameters without weight decay are not scaled
    return optax.chain(*transforms, *scales, optax.scale_by_learning_rate(learning_rate_schedule(config, total_steps)))


class AdamState(NamedTuple):
    """First and second moments, each shaped like the parameters."""

    mu: Any
    nu: Any


def scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Returns Adam's update, m / (sqrt(v) + epsilon), without bias correction.

    optax's `scale_by_adam` divides the moments by 1 - beta^t. ELECTRA, like BERT, does not, which makes early updates
    larger, by (1 - beta1^t) / sqrt(1 - beta2^t): with 0.9 and 0.999 by 3.2 at step 1, 6.5 at step 10, 3.2 at step 100
    and 1.3 at step 1,000.
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
    """Scales the update of each matrix to the norm of the matrix, as in LAMB. If either norm is 0, the factor is 1.

    Source: You et al. 2020, algorithm 2. `optax.scale_by_trust_ratio` takes one norm per array; here an array stacks
    all layers, and query, key and value.
    """

    def scale(name: str, update: jax.Array, param: jax.Array) -> jax.Array:
        matrix_axes = tuple(axis for axis in range(param.ndim) if axis not in STACKED_AXES(name))

        def norm(x: jax.Array) -> jax.Array:
            return jnp.sqrt(jnp.sum(jnp.square(x), axis=matrix_axes, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        nonzero = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(nonzero, param_norm / jnp.where(nonzero, update_norm, 1.0), 1.0)

    def update(updates: Any, state: optax.EmptyState, params: Any) -> tuple[Any, optax.EmptyState]:
        named = tree_rules.named_leaves(params)
        return tree_rules.map_named(lambda name, leaf: scale(name, leaf, named[name]), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
