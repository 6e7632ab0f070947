"""Logits of any number of examples, packed into few batches; used during training and for prediction."""

from __future__ import annotations

import collections
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from electramed_jax.finetune.task.task import CrfOutputs, Examples, Outputs
from electramed_jax.finetune.training import batches
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding
from electramed_jax.training.state import Params
from electramed_jax.training.step import MAX_STEPS_IN_FLIGHT


def predict_logits(
    predict_step: Callable,
    params: Params,
    examples: Examples,
    spec: TrainSpec,
    mesh: Mesh,
    *,
    rows: int,
    row_length: int,
    stop: Callable[[], bool] = lambda: False,
) -> Outputs | None:
    """Returns the logits of every example, in order; None if `stop` returned True.

    Args:
      predict_step: from `step.jit_predict_step`.
      rows: rows of a batch, a multiple of the mesh's batch shards.
      row_length: tokens of a row.
      stop: called before every batch.
    """
    outputs: list = [None] * len(examples)
    in_flight: collections.deque[tuple[batches.Batch, jax.Array]] = collections.deque()

    def collect() -> None:
        batch, logits = in_flight.popleft()
        for index, example_logits in batches.unpack_logits(np.asarray(logits), batch, examples, spec.head):
            outputs[index] = example_logits

    batch_sharding = sharding.batch_sharding(mesh)
    for batch in batches.eval_batches(examples, spec.head, rows, row_length, spec.special.pad):
        if stop():
            return None
        in_flight.append((batch, predict_step(params, batches.to_devices(batch, batch_sharding))))
        if len(in_flight) > MAX_STEPS_IN_FLIGHT:
            collect()
    while in_flight:
        collect()
    return CrfOutputs(outputs, np.asarray(params["head"]["crf"]["transitions"])) if spec.head.crf else outputs
