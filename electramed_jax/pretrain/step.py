"""The train step and the eval step of pre-training: pure functions of (state, batch), and their jitted forms.

This file does no I/O: the training loop, the benchmarks and ahead-of-time compilation share it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

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
from electramed_jax.training.collectives import REPLICATED, FsdpCollectives
from electramed_jax.training.optimizers import optimizer
from electramed_jax.training.state import Params, TrainState
from electramed_jax.training.step import Batch, accumulate_gradients, apply_gradients, jit_eval, jit_step


class MaskedBatch(NamedTuple):
    """A batch with every random choice of its masks and replacements; all arrays have B rows.

    Attributes:
      ids_BT: int32[B, T], the original tokens.
      masked: the masked positions, and the tokens with [MASK] in place.
      uniform_BM: float32[B, M] in [0, 1); selects a token from the generator's distribution at each position.
    """

    ids_BT: jax.Array
    masked: masking.MaskedTokens
    uniform_BM: jax.Array


def sample_masks(ids_BT: jax.Array, config: Config, stream: str, step: jax.Array) -> MaskedBatch:
    """Samples the masked positions of a batch, and the uniform numbers for the generator's replacements.

    Args:
      ids_BT: int32[B, T].
      config: gives the seed, the mask probability and the special tokens.
      stream: "train" or "validation"; the prefix of the random streams.
      step: int32[], the step, or the index of an evaluation batch; the same step gives the same masks.
    """
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
    rows, predictions = positions_BM.shape
    uniform_BM = masking.uniform_per_row(_key(config, f"{stream}/sampling", step), (rows, predictions))
    return MaskedBatch(ids_BT, masked, uniform_BM)


def loss_fn(
    model: Electra,
    batch: MaskedBatch,
    config: Config,
    dropout_key: jax.Array | None,
    *,
    denominators: losses.LossDenominators | None = None,
    with_auc: bool,
) -> tuple[jax.Array, losses.Sums]:
    """Computes the ELECTRA loss of a batch and the sums that the metrics are made of.

    Args:
      model: generator and discriminator.
      batch: rows with their masks.
      config: the objective and the dropout rates.
      dropout_key: None disables dropout.
      denominators: those of the global batch, if `batch` is a part of it: the losses of the parts then add up to the
        loss of the global batch. None: the denominators of `batch` itself.
      with_auc: also count the histograms of the discriminator's AUC.

    Returns:
      float32[], the weighted loss, and the sums by name.
    """
    objective = config.objective
    has_dropout = dropout_key is not None and bool(config.model.dropout or config.model.attention_dropout)
    generator_key, discriminator_key = split_key(dropout_key if has_dropout else None, 2)

    def sample(logits_BMV: jax.Array) -> jax.Array:
        return masking.sample_tokens(
            batch.uniform_BM,
            logits_BMV,
            temperature=objective.temperature,
            forbidden_BM=batch.masked.targets_BM if objective.disallow_correct else None,
        )

    compute = losses.electra_loss
    if objective.kind == "electric":
        candidates_BT = masking.maskable(batch.ids_BT, config.data.special)
        compute = functools.partial(losses.electric_loss, candidates_BT=candidates_BT)
    return compute(
        model,
        batch.ids_BT,
        batch.masked,
        masking.packed_segments(batch.ids_BT, config.data.special),
        objective,
        sample=sample,
        denominators=denominators,
        generator_key=generator_key,
        discriminator_key=discriminator_key,
        with_auc=with_auc,
    )


def train_step(config: Config) -> Callable[[TrainState, Batch], tuple[TrainState, losses.Sums]]:
    """Returns the function (state, batch) -> (next state, metric sums), not jitted.

    With `gradient_accumulation_steps` of A > 1 the batch is processed as A micro-batches in sequence, which bounds the
    activation memory to one micro-batch. Masks are sampled and losses normalized over the whole batch, so that without
    dropout the result equals that of A = 1 up to rounding.
    """
    tx = optimizer.make_optimizer(config.optimizer, config.total_steps)
    learning_rate = optimizer.learning_rate_schedule(config.optimizer, config.total_steps)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, losses.Sums]:
        collectives = FsdpCollectives(state.params, config.model)
        on_device = functools.partial(compute_gradients, config, collectives)
        sums, gradients = collectives.shard_map(
            on_device, (REPLICATED, collectives.param_specs), state.params, batch, state.step
        )
        next_state, gradient_norm = apply_gradients(gradients, state, tx)
        sums |= {
            "step_count": jnp.float32(1),
            "gradient_norm_sum": gradient_norm,
            "learning_rate_sum": learning_rate(state.step),
        }
        return next_state, sums

    return step


def compute_gradients(
    config: Config, collectives: FsdpCollectives, params: Params, batch: Batch, step: jax.Array
) -> tuple[losses.Sums, Params]:
    """Computes metric sums and gradients of the global batch; runs on each device with its shards and its rows.

    Returns:
      The sums over all devices, the loss among them, and the shards of the gradients, reduced over all devices.
    """
    masked_batch = sample_masks(batch["input_ids"], config, "train", step)
    denominators = collectives.psum(_denominators(config, masked_batch))
    full_params, reduce_gradients = jax.vjp(collectives.all_gather_params, params)

    def evaluate(rows: MaskedBatch, dropout_key: jax.Array) -> tuple[losses.Sums, Params]:
        def loss(params: Params) -> tuple[jax.Array, losses.Sums]:
            model = pretrain_state.merge_params(config, params)
            return loss_fn(model, rows, config, dropout_key, denominators=denominators, with_auc=False)

        (value, sums), gradients = jax.value_and_grad(loss, has_aux=True)(full_params)
        return sums | {"loss_sum": value}, gradients

    dropout_key = _key(config, "train/dropout", step)
    if config.gradient_accumulation_steps == 1:
        sums, gradients = evaluate(masked_batch, dropout_key)
    else:
        sums, gradients = accumulate_gradients(evaluate, masked_batch, dropout_key, config.gradient_accumulation_steps)
        gradients = jax.tree.map(lambda gradient, x: gradient.astype(x.dtype), gradients, full_params)
    return collectives.psum(sums), *reduce_gradients(gradients)


def _denominators(config: Config, batch: MaskedBatch) -> losses.LossDenominators:
    if config.objective.kind == "electric":
        return losses.electric_denominators(masking.maskable(batch.ids_BT, config.data.special))
    return losses.loss_denominators(batch.masked, masking.packed_segments(batch.ids_BT, config.data.special))


def eval_step(config: Config) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """Returns the function (params, batch, index) -> metric sums, not jitted.

    The masks of a batch depend on its index alone, so that every evaluation predicts the same tokens.
    """

    def step(params: Params, batch: Batch, index: jax.Array) -> losses.Sums:
        collectives = FsdpCollectives(params, config.model)

        def on_device(params: Params, batch: Batch, index: jax.Array) -> losses.Sums:
            model = pretrain_state.merge_params(config, collectives.all_gather_params(params))
            masked_batch = sample_masks(batch["input_ids"], config, "validation", index)
            return collectives.psum(loss_fn(model, masked_batch, config, None, with_auc=True)[1])

        return collectives.shard_map(on_device, REPLICATED, params, batch, index)

    return step


def jit_train_step(config: Config, mesh: Mesh) -> jax.stages.Wrapped:
    """Returns `train_step` jitted over the mesh; the old state is donated.

    Raises:
      UserError: the batch does not divide into micro-batches.
    """
    _check_micro_batches(config, mesh)
    return jit_step(train_step(config), pretrain_state.abstract_state(config, mesh), mesh)


def jit_eval_step(config: Config, mesh: Mesh) -> Callable[[Params, Batch, jax.Array], losses.Sums]:
    """Returns `eval_step` jitted over the mesh."""
    return jit_eval(eval_step(config), pretrain_state.abstract_state(config, mesh).params, mesh)


def compute_metrics(sums: Mapping[str, np.ndarray], config: Config) -> dict[str, float]:
    """Computes the metrics of one or more training steps, by their public names, from the steps' sums."""
    steps = sums["step_count"]
    return losses.electra_metrics(sums, config.objective) | {
        "gradient_norm": float(sums["gradient_norm_sum"] / steps),
        "learning_rate": float(sums["learning_rate_sum"] / steps),
    }


def _check_micro_batches(config: Config, mesh: Mesh) -> None:
    parts = config.gradient_accumulation_steps * mesh.shape["data"] * mesh.shape["fsdp"]
    if config.gradient_accumulation_steps > 1 and config.batch_size % parts:
        raise UserError(
            f"batch_size={config.batch_size} is not divisible by gradient_accumulation_steps×data×fsdp={parts}; use "
            f"{max(1, config.batch_size // parts) * parts}, or fewer gradient_accumulation_steps"
        )


def _key(config: Config, name: str, step: jax.Array) -> jax.Array:
    return key_for(jax.random.key(config.seed), name, step)
