"""The same validation questions at every evaluation: fixed rows, fixed masks."""

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
    """Generator and discriminator metrics over all batches, each token weighing the same.

    Args:
      batches: at least one; `config.eval_batches` of `data.loader.ordered_batches` as a rule.
      eval_step: `training.step.jit_eval_step`.
      stop: asked before every batch; where it says so, the evaluation is given up and None returned.
    """
    sums = []
    for index, batch in enumerate(batches):
        if stop():
            return None
        sums.append(eval_step(params, batch, jnp.int32(index)))
        if index >= MAX_STEPS_IN_FLIGHT:  # devices stay busy, and `stop` is heeded soon
            jax.block_until_ready(sums[index - MAX_STEPS_IN_FLIGHT])
    return losses.electra_metrics(sum_metrics(jax.device_get(sums)), config.objective)
