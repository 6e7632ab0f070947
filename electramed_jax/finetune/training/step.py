"""Train and predict step of fine-tuning. Both are pure functions without I/O, jitted over the mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from electramed_jax.common.rng import key_for
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import Head
from electramed_jax.finetune.training import losses, model
from electramed_jax.finetune.training.losses import Batch
from electramed_jax.model import masking
from electramed_jax.training import state as state_lib
from electramed_jax.training import step as step_lib
from electramed_jax.training.collectives import REPLICATED, ROWS, FsdpCollectives
from electramed_jax.training.optimizers import layer_decay, optimizer
from electramed_jax.training.state import Params, TrainState

Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """Settings that define the compiled steps. The seed is not among them, so that all seeds share one compilation."""

    model: ModelConfig
    head: Head
    special: SpecialIds
    optimizer: FinetuneOptimizerConfig
    total_steps: int
    gradient_accumulation_steps: int = 1
    r_drop: float = 0.0

    def tx(self) -> optax.GradientTransformation:
        """Returns the optimizer of pre-training with layer-wise learning rates."""
        config = self.optimizer
        by_depth = layer_decay.scale_by_depth(
            config.layerwise_lr_decay,
            self.model.num_layers,
            config.layerwise_lr_decay_rule,
            freeze_layers=config.freeze_layers,
        )
        tx = optimizer.make_optimizer(config, self.total_steps, by_depth, bias_correction=config.bias_correction)
        if not config.freeze_layers:
            return tx
        # before the clip, too: gradients of frozen parameters do not count for the norm
        return optax.chain(layer_decay.freeze(config.freeze_layers, self.model.num_layers), tx)

    def init(self, key: jax.Array) -> TrainState:
        """Returns a train state with random encoder and head."""
        return state_lib.create_train_state(model.init_params(self.model, self.head, key), self.tx())

    def abstract_state(self, mesh: Mesh) -> TrainState:
        """Returns shapes, dtypes and shardings of the train state."""
        return state_lib.abstract_train_state(lambda: self.init(jax.random.key(0)), mesh)


def train_step(spec: TrainSpec) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Sums]]:
    """Returns step(state, batch, root key of the seed) -> (next state, metric sums of the batch)."""
    tx, schedule = spec.tx(), optimizer.learning_rate_schedule(spec.optimizer, spec.total_steps)

    def step(state: TrainState, batch: Batch, root: jax.Array) -> tuple[TrainState, Sums]:
        has_dropout = bool(spec.model.dropout or spec.model.attention_dropout)
        key = key_for(root, "finetune/dropout", state.step) if has_dropout else None

        collectives = FsdpCollectives(state.params, spec.model)

        def on_device(params: Params, rows: Batch, key: jax.Array | None) -> tuple[Params, Sums]:
            count = collectives.psum(jnp.sum(losses.loss_weights(rows["labels"], spec.head)))

            def evaluate(rows: Batch, key: jax.Array | None) -> tuple[Sums, Params]:
                def loss(params: Params) -> tuple[jax.Array, Sums]:
                    """Returns the contribution of these rows to the mean loss of the batch."""
                    total, own_count = _loss_sum(spec, collectives.all_gather_params(params), rows, key)
                    return total / jnp.maximum(count, 1e-6), {"loss_sum": total, "count": own_count}

                gradients, sums = jax.grad(loss, has_aux=True)(params)
                return sums, gradients

            if spec.gradient_accumulation_steps == 1:
                sums, gradients = evaluate(rows, key)
            else:
                sums, gradients = step_lib.accumulate_gradients(evaluate, rows, key, spec.gradient_accumulation_steps)
            return gradients, collectives.psum(sums)

        gradients, sums = collectives.shard_map(
            on_device, (collectives.param_specs, REPLICATED), state.params, batch, key
        )
        stepped, norm = step_lib.apply_gradients(gradients, state, tx)
        return stepped, sums | {
            "gradient_norm_sum": norm,
            "learning_rate_sum": schedule(state.step),
            "token_count": jnp.sum(batch["input_ids"] != spec.special.pad, dtype=jnp.float32),
            "step_count": jnp.float32(1),
        }

    return step


def _loss_sum(spec: TrainSpec, params: Params, rows: Batch, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns the sum of the losses of rows and of their weights; with R-Drop of two dropout masks."""
    structure = masking.packed_segments(rows["input_ids"], spec.special)
    network = model.merge_params(spec.model, spec.head, params)

    def of_mask(key: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        logits = network.logits(rows["input_ids"], structure, key)
        return logits, *losses.task_loss(logits, rows, structure.segments_BT, spec.head, network.transitions)

    if not spec.r_drop:
        return of_mask(key)[1:]
    assert key is not None, "R-Drop without dropout"
    first, second = jax.random.split(key)
    logits, total, count = of_mask(first)
    others, other_total, _ = of_mask(second)
    weights = losses.loss_weights(rows["labels"], spec.head)
    divergence = losses.divergence(logits, others, weights, spec.head)
    return (total + other_total) / 2 + spec.r_drop * divergence, count


def predict_step(spec: TrainSpec) -> Callable[[Params, Batch], jax.Array]:
    """Returns predict(params, batch) -> logits float32[R, T, K]."""

    def predict(params: Params, batch: Batch) -> jax.Array:
        collectives = FsdpCollectives(params, spec.model)

        def on_device(params: Params, rows: Batch) -> jax.Array:
            network = model.merge_params(spec.model, spec.head, collectives.all_gather_params(params))
            return network.logits(rows["input_ids"], masking.packed_segments(rows["input_ids"], spec.special))

        return collectives.shard_map(on_device, ROWS, params, batch)

    return predict


def compute_metrics(sums: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of one or more steps from the sums of `train_step`."""
    return {
        "loss": float(sums["loss_sum"] / max(1e-6, sums["count"])),
        "gradient_norm": float(sums["gradient_norm_sum"] / sums["step_count"]),
        "learning_rate": float(sums["learning_rate_sum"] / sums["step_count"]),
    }


def jit_train_step(spec: TrainSpec, mesh: Mesh) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Sums]]:
    """Returns the compiled train step; it donates the state."""
    return step_lib.jit_step(train_step(spec), spec.abstract_state(mesh), mesh)


def jit_predict_step(spec: TrainSpec, mesh: Mesh) -> Callable[[Params, Batch], jax.Array]:
    """Returns the compiled predict step."""
    return step_lib.jit_eval(predict_step(spec), spec.abstract_state(mesh).params, mesh)
