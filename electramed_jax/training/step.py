"""What the train steps of pre-training and fine-tuning share: jit over the mesh, applying gradients, summing metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params, TrainState

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[B, T]}

# What XLA would not choose by itself, by platform; tests/benchmarks/README.md has what it is worth.
COMPILER_OPTIONS: dict[str, dict[str, bool | int]] = {
    # cuBLASLt's products, which add biases and residuals on their way, and none of them merged.
    "gpu": {
        "xla_gpu_enable_cublaslt": True,
        "xla_gpu_enable_triton_gemm": False,
        "xla_gpu_dot_merger_threshold_mb": 0,
    },
}

MAX_STEPS_IN_FLIGHT = 2  # steps given to the devices beyond the one they are at: enough to keep them busy


@jax.named_scope("optimizer")
def apply_gradients(
    gradients: Params, state: TrainState, tx: optax.GradientTransformation
) -> tuple[TrainState, jax.Array]:
    """The next state, and the global norm of the gradients before they are clipped."""
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), optax.tree.norm(gradients)


def jit_step(step: Callable[..., tuple[TrainState, Any]], abstract_state: TrainState, mesh: Mesh) -> Callable:
    """Any step(state, batch, ...) -> (state, sums) over the mesh: the state as its leaves are sharded, the batch by
    rows, what else there is and the sums on every device; the old state's memory is given to the new one."""
    where, everywhere = state_lib.get_shardings(abstract_state), sharding.replicated(mesh)
    others = len(inspect.signature(step).parameters) - 2
    return jax.jit(
        step,
        in_shardings=(where, sharding.batch_sharding(mesh), *[everywhere] * others),
        out_shardings=(where, everywhere),
        donate_argnums=0,
        compiler_options=COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
    )


def jit_eval(measure: Callable[..., Any], abstract_params: Params, mesh: Mesh) -> Callable:
    """Any measure(params, batch, ...) over the mesh, its result on every device; see `jit_step`."""
    everywhere = sharding.replicated(mesh)
    others = len(inspect.signature(measure).parameters) - 2
    return jax.jit(
        measure,
        in_shardings=(state_lib.get_shardings(abstract_params), sharding.batch_sharding(mesh), *[everywhere] * others),
        out_shardings=everywhere,
    )


def sum_metrics(many: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The sums of several steps (numpy, float64) as one."""
    return {name: np.sum([np.asarray(sums[name], np.float64) for sums in many], axis=0) for name in many[0]}
