"""Parts of a train step that pre-training and fine-tuning share: jit over the mesh, gradients, sums of metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params, TrainState

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[B, T]}
Rows = TypeVar("Rows")  # arrays whose first axis is the row
Sums = dict[str, jax.Array]

# Compiler options by platform that are not XLA's defaults; tests/benchmarks/README.md has the measured gain of each.
COMPILER_OPTIONS: dict[str, dict[str, bool | int]] = {
    # cuBLASLt fuses biases and residuals into matrix products; products are not merged.
    "gpu": {
        "xla_gpu_enable_cublaslt": True,
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_dot_merger_threshold_mb": 0,
    },
}

MAX_STEPS_IN_FLIGHT = 2  # dispatched steps beyond the one that runs: enough to keep the devices busy


@jax.named_scope("optimizer")
def apply_gradients(
    gradients: Params, state: TrainState, tx: optax.GradientTransformation
) -> tuple[TrainState, jax.Array]:
    """Returns the next state, and the global norm of the gradients before clipping."""
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), optax.tree.norm(gradients)


def accumulate_gradients(
    evaluate: Callable[[Rows, Any], tuple[Sums, Params]], batch: Rows, key: jax.Array | None, count: int
) -> tuple[Sums, Params]:
    """Returns the float32 sum of `evaluate(micro_batch, micro_key)` over `count` micro-batches, with `jax.lax.scan`.

    Args:
      evaluate: returns the metric sums and gradients of a micro-batch.
      batch: rows of one device. Micro-batch i takes the rows i, i + count, i + 2 count, ...
      key: split into one dropout key per micro-batch; None: no dropout.
      count: number of micro-batches; divides the rows.
    """

    def split_rows(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    def add(total: tuple[Sums, Params], micro: tuple[Rows, Any]) -> tuple[tuple[Sums, Params], None]:
        return jax.tree.map(jnp.add, total, evaluate(*micro)), None

    micro_batches = (jax.tree.map(split_rows, batch), None if key is None else jax.random.split(key, count))
    shapes = jax.eval_shape(evaluate, *jax.tree.map(lambda x: x[0], micro_batches))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes)
    return jax.lax.scan(add, zeros, micro_batches)[0]


def jit_step(step: Callable[..., tuple[TrainState, Any]], abstract_state: TrainState, mesh: Mesh) -> jax.stages.Wrapped:
    """Jits `step(state, batch, ...) -> (state, sums)` over the mesh.

    The state keeps the sharding of `abstract_state`, the batch is split by rows, further arguments and the sums are
    replicated. The buffers of the old state are donated.
    """
    state_shardings, replicated = state_lib.get_shardings(abstract_state), sharding.replicated(mesh)
    num_further = len(inspect.signature(step).parameters) - 2
    return jax.jit(
        step,
        in_shardings=(state_shardings, sharding.batch_sharding(mesh), *[replicated] * num_further),
        out_shardings=(state_shardings, replicated),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )


def jit_eval(evaluate: Callable[..., Any], abstract_params: Params, mesh: Mesh) -> Callable:
    """Jits `evaluate(params, batch, ...)` over the mesh, with a replicated result; see `jit_step`."""
    replicated = sharding.replicated(mesh)
    num_further = len(inspect.signature(evaluate).parameters) - 2
    return jax.jit(
        evaluate,
        in_shardings=(
            state_lib.get_shardings(abstract_params),
            sharding.batch_sharding(mesh),
            *[replicated] * num_further,
        ),
        out_shardings=replicated,
    )


def sum_metrics(steps: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Adds up the metric sums of several steps, in float64."""
    return {name: np.sum([np.asarray(sums[name], np.float64) for sums in steps], axis=0) for name in steps[0]}
