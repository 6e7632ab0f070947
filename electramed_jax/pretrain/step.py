"""The jitted train and eval steps: pure functions of (state, batch).

There is no I/O here: the loop, benchmarks and ahead-of-time compilation share this file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError
from electramed_jax.common.rng import key_for
from electramed_jax.config.pretrain import Config
from electramed_jax.model import losses, masking
from electramed_jax.model.electra import Electra
from electramed_jax.model.layers import split_key
from electramed_jax.pretrain import state as pretrain_state
from electramed_jax.training import optimizer
from electramed_jax.training.collectives import REPLICATED, FsdpCollectives
from electramed_jax.training.state import Params, TrainState
from electramed_jax.training.step import Batch, apply_gradients, jit_eval, jit_step


class MaskedBatch(NamedTuple):
    """A batch and what chance decides about it before a network is run; every array has a row per row of the batch."""

    ids_BT: jax.Array
    masked: masking.MaskedTokens
    uniform_BM: jax.Array  # in [0, 1): decides which token the generator's distribution gives


def sample_masks(ids_BT: jax.Array, config: Config, stream: str, step: jax.Array) -> MaskedBatch:
    """Chooses what is masked, and the uniform numbers that the replacements will be sampled with."""
    objective, special = config.objective, config.data.special
    positions_BM, weights_BM = masking.choose_positions(
        _key(config, f"{stream}/positions", step),
        ids_BT,
        special,
        objective.mask_probability,
        config.max_predictions,
    )
    mask_key = _key(config, f"{stream}/mask", step)
    masked = masking.mask_tokens(mask_key, ids_BT, positions_BM, weights_BM, special.mask, objective.mask_token_share)
    uniform_BM = masking.uniform_per_row(_key(config, f"{stream}/sampling", step), positions_BM.shape)
    return MaskedBatch(ids_BT, masked, uniform_BM)


def loss_fn(
    model: Electra,
    drawn: MaskedBatch,
    config: Config,
    dropout_key: jax.Array | None,
    *,
    denominators: losses.LossDenominators | None = None,
    with_auc: bool,
) -> tuple[jax.Array, losses.Sums]:
    """The loss of these rows, or their share in that of the batch whose `denominators` are given."""
    objective = config.objective
    has_dropout = dropout_key is not None and bool(config.model.dropout or config.model.attention_dropout)
    generator_key, discriminator_key = split_key(dropout_key if has_dropout else None, 2)

    def sample(logits_BMV: jax.Array) -> jax.Array:
        forbidden_BM = drawn.masked.targets_BM if objective.disallow_correct else None
        return masking.sample_tokens(
            drawn.uniform_BM,
            logits_BMV,
            temperature=objective.temperature,
            forbidden_BM=forbidden_BM,
        )

    return losses.electra_loss(
        model,
        drawn.ids_BT,
        drawn.masked,
        masking.packed_segments(drawn.ids_BT, config.data.special),
        objective,
        sample=sample,
        denominators=denominators,
        generator_key=generator_key,
        discriminator_key=discriminator_key,
        with_auc=with_auc,
    )


def _key(config: Config, name: str, step: jax.Array) -> jax.Array:
    return key_for(jax.random.key(config.seed), name, step)


def train_step(config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, losses.Sums]]:
    """The step as a pure function, to be jitted by the caller.

    With `gradient_accumulation_steps` of A the batch is run as A micro-batches, one after the other, in the memory of
    one. Masks and samples are drawn, and losses normalised, over the whole batch: without dropout the step
    is that of A = 1 to rounding.
    """
    tx = optimizer.make_optimizer(config.optimizer, config.total_steps)
    learning_rate = optimizer.learning_rate_schedule(config.optimizer, config.total_steps)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, losses.Sums]:
        collectives = FsdpCollectives(state.params, config.model)
        on_device = functools.partial(sums_and_gradients, config, collectives)
        sums, gradients = collectives.shard_map(
            on_device, (REPLICATED, collectives.param_specs), state.params, batch, state.step
        )
        stepped, gradient_norm = apply_gradients(gradients, state, tx)
        sums |= {
            "step_count": jnp.float32(1),
            "gradient_norm_sum": gradient_norm,
            "learning_rate_sum": learning_rate(state.step),
        }
        return stepped, sums

    return step


def sums_and_gradients(
    config: Config, collectives: FsdpCollectives, params: Params, batch: Batch, step: jax.Array
) -> tuple[losses.Sums, Params]:
    """What one device does: the sums (the loss among them) and gradients of its rows, added up over all devices'."""
    drawn = sample_masks(batch["input_ids"], config, "train", step)
    denominators = collectives.psum(
        losses.loss_denominators(drawn.masked, masking.packed_segments(drawn.ids_BT, config.data.special))
    )
    whole, of_shards = jax.vjp(collectives.all_gather_params, params)

    def evaluate(rows: MaskedBatch, key: jax.Array) -> tuple[losses.Sums, Params]:
        def loss(whole: Params) -> tuple[jax.Array, losses.Sums]:
            return loss_fn(
                pretrain_state.merge_params(config, whole), rows, config, key, denominators=denominators, with_auc=False
            )

        (value, sums), gradients = jax.value_and_grad(loss, has_aux=True)(whole)
        return sums | {"loss_sum": value}, gradients

    dropout_key = _key(config, "train/dropout", step)
    if config.gradient_accumulation_steps == 1:
        sums, gradients = evaluate(drawn, dropout_key)
    else:
        sums, gradients = accumulate_gradients(evaluate, drawn, dropout_key, config.gradient_accumulation_steps)
        gradients = jax.tree.map(lambda gradient, x: gradient.astype(x.dtype), gradients, whole)
    return collectives.psum(sums), *of_shards(gradients)


def accumulate_gradients(
    evaluate: Callable[[MaskedBatch, jax.Array], tuple[losses.Sums, Params]],
    drawn: MaskedBatch,
    key: jax.Array,
    count: int,
) -> tuple[losses.Sums, Params]:
    """Adds up `evaluate(rows, key)`, in float32, over `count` micro-batches, each with a key of its own.

    Micro-batch i takes rows i, i + count, ... of a device's.
    """

    def micro(rows: jax.Array) -> jax.Array:
        return rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]).swapaxes(0, 1)

    def add(total: tuple[losses.Sums, Params], one: tuple[MaskedBatch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, evaluate(*one)), None

    parts = (jax.tree.map(micro, drawn), jax.random.split(key, count))
    shapes = jax.eval_shape(evaluate, *jax.tree.map(lambda part: part[0], parts))
    zeros = jax.tree.map(lambda one: jnp.zeros(one.shape, jnp.float32), shapes)
    return jax.lax.scan(add, zeros, parts)[0]


def eval_step(config: Config) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """Sums of one validation batch; masked by its index alone, so that every evaluation asks the same questions."""

    def step(params: Params, batch: Batch, index: jax.Array) -> losses.Sums:
        collectives = FsdpCollectives(params, config.model)

        def on_device(params: Params, batch: Batch, index: jax.Array) -> losses.Sums:
            model = pretrain_state.merge_params(config, collectives.all_gather_params(params))
            drawn = sample_masks(batch["input_ids"], config, "validation", index)
            return collectives.psum(loss_fn(model, drawn, config, None, with_auc=True)[1])

        return collectives.shard_map(on_device, REPLICATED, params, batch, index)

    return step


def jit_train_step(config: Config, mesh: Mesh) -> Callable[[TrainState, Batch], tuple[TrainState, losses.Sums]]:
    """`train_step` over the mesh; the old state's memory is given to the new one.

    Raises:
      UserError: the batch cannot be cut into its micro-batches.
    """
    _check_micro_batches(config, mesh)
    return jit_step(train_step(config), pretrain_state.abstract_state(config, mesh), mesh)


def _check_micro_batches(config: Config, mesh: Mesh) -> None:
    parts = config.gradient_accumulation_steps * mesh.shape["data"] * mesh.shape["fsdp"]
    if config.gradient_accumulation_steps > 1 and config.batch_size % parts:
        raise UserError(
            f"batch_size={config.batch_size} is not divisible by gradient_accumulation_steps×data×fsdp={parts}; use "
            f"{max(1, config.batch_size // parts) * parts}, or fewer gradient_accumulation_steps"
        )


def jit_eval_step(config: Config, mesh: Mesh) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """`eval_step` over the mesh."""
    return jit_eval(eval_step(config), pretrain_state.abstract_state(config, mesh).params, mesh)


def compute_metrics(sums: Mapping[str, np.ndarray], config: Config) -> dict[str, float]:
    """Metrics of one or several training steps, by their public names."""
    steps = sums["step_count"]
    return losses.electra_metrics(sums, config.objective) | {
        "gradient_norm": float(sums["gradient_norm_sum"] / steps),
        "learning_rate": float(sums["learning_rate_sum"] / steps),
    }
