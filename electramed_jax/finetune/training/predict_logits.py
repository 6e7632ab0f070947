"""Examples to logits: packed into rows, as few batches as that gives; while a model trains, and after."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from electramed_jax.finetune.task.task import Examples, Outputs
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding
from electramed_jax.training import step as step_lib
from electramed_jax.training.state import Params


def outputs(
    step: Callable,
    params: Params,
    examples: Examples,
    recipe: TrainSpec,
    mesh: Mesh,
    *,
    rows: int,
    row_length: int,
    stop: Callable[[], bool] = lambda: False,
) -> Outputs | None:
    """The logits of every example, in order; None where it was told to `stop`.

    Args:
      step: as `step.jit_predict_step` makes it.
      rows: of a batch; the mesh divides them.
    """
    found: list = [None] * len(examples)
    under_way: list[tuple[batches.Batch, jax.Array]] = []

    def collect() -> None:
        batch, logits = under_way.pop(0)
        for number, one in batches.unpacked(np.asarray(logits), batch, examples, recipe.head):
            found[number] = one

    placing = sharding.batch_sharding(mesh)
    for batch in batches.measured(examples, recipe.head, rows, row_length, recipe.special.pad):
        if stop():
            return None
        under_way.append((batch, step(params, batches.placed_on(batch, placing))))
        if len(under_way) > step_lib.MAX_STEPS_IN_FLIGHT:
            collect()
    while under_way:
        collect()
    return found
