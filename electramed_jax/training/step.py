"""The jitted steps: pure functions of (state, batch). No I/O;
the loop, benchmarks and ahead-of-time compilation share them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from electramed_jax.common.rng import key_for
from electramed_jax.config import Config
from electramed_jax.model import losses, masking
from electramed_jax.model.electra import Electra
from electramed_jax.training import optimizer, sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params, TrainState

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[B, T]}

IN_FLIGHT = 2  # steps given to the devices beyond the one they are at: enough to keep them busy


def loss_and_sums(
    model: Electra,
    batch: Batch,
    config: Config,
    stream: str,
    step: jax.Array,
    *,
    with_dropout: bool,
    with_auc: bool,
) -> tuple[jax.Array, losses.Sums]:
    """Masks the batch, runs both networks and returns the loss. `stream` and `step` name the randomness."""
    root, objective, special = jax.random.key(config.seed), config.objective, config.data.special

    def key(name: str) -> jax.Array:
        return key_for(root, f"{stream}/{name}", step)

    def dropout_key(name: str) -> jax.Array | None:
        used = with_dropout and (config.model.dropout or config.model.attention_dropout)
        return key(name) if used else None

    ids_BT = batch["input_ids"]
    positions_BM, weights_BM = masking.choose_positions(
        key("positions"), ids_BT, special, objective.mask_probability, config.max_predictions
    )
    masked = masking.mask(key("mask"), ids_BT, positions_BM, weights_BM, special.mask, objective.mask_token_share)

    def sample(logits_BMV: jax.Array) -> jax.Array:
        forbidden_BM = masked.targets_BM if objective.disallow_correct else None
        return masking.sample(
            key("sampling"),
            logits_BMV,
            temperature=objective.temperature,
            forbidden_BM=forbidden_BM,
        )

    return losses.objective(
        model,
        ids_BT,
        masked,
        masking.structure(ids_BT, special),
        objective,
        sample=sample,
        generator_key=dropout_key("generator_dropout"),
        discriminator_key=dropout_key("discriminator_dropout"),
        with_auc=with_auc,
    )


def train_step(config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, losses.Sums]]:
    """The step as a pure function, to be jitted by the caller."""
    tx = optimizer.make(config.optimizer, config.total_steps)
    learning_rate = optimizer.schedule(config.optimizer, config.total_steps)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, losses.Sums]:
        def loss(params: Params) -> tuple[jax.Array, losses.Sums]:
            model = state_lib.bind(config, params)
            return loss_and_sums(model, batch, config, "train", state.step, with_dropout=True, with_auc=False)

        (loss_value, sums), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        sums |= {
            "step_count": jnp.float32(1),
            "loss_sum": loss_value,
            "gradient_norm_sum": optax.tree.norm(gradients),
            "learning_rate_sum": learning_rate(state.step),
        }
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state), sums

    return step


def eval_step(config: Config) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """Sums of one validation batch; masked by its index alone, so that every evaluation asks the same questions."""

    def step(params: Params, batch: Batch, index: jax.Array) -> losses.Sums:
        model = state_lib.bind(config, params)
        return loss_and_sums(model, batch, config, "validation", index, with_dropout=False, with_auc=True)[1]

    return step


def jit_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, losses.Sums]]:
    """`train_step` over the mesh; the old state's memory is given to the new one."""
    where = jax.tree.map(lambda leaf: leaf.sharding, state_lib.abstract_state(config, mesh))
    return jax.jit(
        train_step(config),
        in_shardings=(where, {"input_ids": sharding.batch_sharding(mesh)}),
        out_shardings=(where, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def jit_eval_step(config: Config, mesh: Mesh) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """`eval_step` over the mesh."""
    where = jax.tree.map(lambda leaf: leaf.sharding, state_lib.abstract_state(config, mesh).params)
    return jax.jit(
        eval_step(config),
        in_shardings=(
            where,
            {"input_ids": sharding.batch_sharding(mesh)},
            sharding.replicated(mesh),
        ),
        out_shardings=sharding.replicated(mesh),
    )


def add_up(many: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The sums of several steps (numpy, float64) as one."""
    return {name: np.sum([np.asarray(sums[name], np.float64) for sums in many], axis=0) for name in many[0]}


def train_means(sums: Mapping[str, np.ndarray], config: Config) -> dict[str, float]:
    """Metrics of one or several training steps, by their public names."""
    steps = sums["step_count"]
    return losses.means(sums, config.objective) | {
        "gradient_norm": float(sums["gradient_norm_sum"] / steps),
        "learning_rate": float(sums["learning_rate_sum"] / steps),
    }
