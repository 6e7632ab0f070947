"""Evaluation of parameters on validation batches with the same rows and masks every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from electramed_jax.config.pretrain import Config
from electramed_jax.model import losses
from electramed_jax.training.state import Params
from electramed_jax.training.step import MAX_STEPS_IN_FLIGHT, Batch, sum_metrics


def evaluate(
    params: Params,
    batches: Iterable[Batch],
    eval_step: Callable[[Params, Batch, jax.Array], losses.Sums],
    config: Config,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Computes the generator and discriminator metrics over all batches; every token has the same weight.

    Args:
      params: of generator and discriminator.
      batches: one or more, from `data.dataset.loader.ordered_batches`.
      eval_step: from `pretrain.step.jit_eval_step`.
      config: the objective.
      stop: called before each batch; True interrupts the evaluation.

    Returns:
      The metrics by name, or None if `stop` interrupted the evaluation.
    """
    sums = []
    for index, batch in enumerate(batches):
        if stop():
            return None
        sums.append(eval_step(params, batch, jnp.int32(index)))
        if index >= MAX_STEPS_IN_FLIGHT:  # bounds the delay before `stop` takes effect
            jax.block_until_ready(sums[index - MAX_STEPS_IN_FLIGHT])
    return losses.electra_metrics(sum_metrics(jax.device_get(sums)), config.objective)
