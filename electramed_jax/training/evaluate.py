"""The same validation questions at every evaluation: fixed rows, fixed masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from electramed_jax.config import Config
from electramed_jax.model import losses
from electramed_jax.training.state import Params
from electramed_jax.training.step import Batch, add_up


def run(
    params: Params,
    batches: Iterable[Batch],
    eval_step: Callable[[Params, Batch, jax.Array], losses.Sums],
    config: Config,
) -> dict[str, float]:
    """Generator and discriminator metrics over all batches, each token weighing the same.

    Args:
      batches: at least one; `config.eval_batches` of `data.loader.ordered_batches` as a rule.
      eval_step: `training.step.jit_eval_step`.
    """
    sums = [eval_step(params, batch, jnp.int32(index)) for index, batch in enumerate(batches)]
    return losses.means(add_up(jax.device_get(sums)), config.objective)
