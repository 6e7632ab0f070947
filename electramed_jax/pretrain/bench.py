"""What a step, a batch of the loader and a checkpoint take on this machine. `electramed bench` tells it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from typing import Any

import jax
import numpy as np

from electramed_jax import __version__
from electramed_jax.common.timing import Timing, benchmark, time_call
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.dataset.loader import Loader
from electramed_jax.data.dataset.synthetic_loader import SyntheticLoader
from electramed_jax.model import flops
from electramed_jax.pretrain.state import abstract_state, create
from electramed_jax.pretrain.step import jit_train_step
from electramed_jax.training import checkpoint, sharding

VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def machine() -> dict[str, Any]:
    """Devices and versions: what a figure means nothing without."""
    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "host_cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "electramed_jax": __version__,
    } | {name: importlib.metadata.version(name) for name in VERSIONS}


def open_loader(config: Config) -> Loader | SyntheticLoader:
    """Of the config's dataset; of random rows where it names none."""
    rows, data = sharding.batch_sharding(sharding.make_mesh(config.mesh)), config.data
    if data.directory:
        return Loader(open_dataset(data.directory), "train", config.batch_size, data.seed, rows, weights=data.weights)
    return SyntheticLoader(config.batch_size, data.max_seq_length, config.model.vocab_size, data.seed, rows)


def step(config: Config, *, warm_up: int, repeats: int, profile: str) -> tuple[Timing, dict[str, Any]]:
    """A training step on one batch, from its dispatch until the new state is there.

    Returns:
      the timing and tokens_per_second (non-pad), model_flops, model_flops_per_second and, where the device's peak is
      known, model_flops_utilization; all of the median.
    """
    mesh = sharding.make_mesh(config.mesh)
    with jax.set_mesh(mesh), open_loader(config) as loader:
        batch = loader.at(0)
        tokens = int(np.sum(np.asarray(jax.device_get(batch["input_ids"])) != config.data.special.pad))
        state, train_step = create(config, mesh), jit_train_step(config, mesh)

        def run() -> None:
            nonlocal state
            state, sums = train_step(state, batch)
            jax.block_until_ready((state, sums))

        timing = benchmark(lambda: time_call(run), warm_up=warm_up, repeats=repeats)
        _profiled(profile, run)
    work = flops.train_step_flops(config)
    figures = {
        "tokens_per_second": tokens / timing.median,
        "model_flops": work,
        "model_flops_per_second": work / timing.median,
    }
    if peak := flops.peak_flops(jax.devices()[0].device_kind):
        figures["model_flops_utilization"] = work / timing.median / (peak * mesh.size)
    return timing, figures


def data(config: Config, *, batches: int, warm_up: int, repeats: int, profile: str) -> tuple[Timing, dict[str, Any]]:
    """So many batches in a row, each waited for on the devices, as training would get them if steps took no time."""
    with open_loader(config) as loader:
        at = 0

        def run() -> None:
            nonlocal at
            for at in range(at, at + batches):
                jax.block_until_ready(loader.at(at))
            at += 1

        timing = benchmark(lambda: time_call(run), warm_up=warm_up, repeats=repeats)
        _profiled(profile, run)
    rows = batches * config.batch_size / timing.median
    return timing, {"batches": batches, "rows_per_second": rows, "slots_per_second": rows * config.data.max_seq_length}


def save_and_restore(
    config: Config, folder: str, *, warm_up: int, repeats: int, profile: str
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Saves a fresh state, and reads it back.

    Returns:
      timings of "pause" (training waits for it), "save" (until it is whole on disk, the pause included) and "restore",
      and state_bytes.
    """
    mesh = sharding.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        state = create(config, mesh)
        jax.block_until_ready(state)
        spent: dict[str, list[float]] = {"pause": [], "save": [], "restore": []}

        def run() -> float:
            number, began = len(spent["save"]), time.perf_counter()
            with checkpoint.CheckpointManager(
                folder, lambda mesh: abstract_state(config, mesh), max_to_keep=1
            ) as saved:
                opened = time.perf_counter()
                saved.save(number, state, {"step": number})
                spent["pause"].append(time.perf_counter() - opened)
            spent["save"].append(time.perf_counter() - opened)
            with checkpoint.CheckpointManager(
                folder, lambda mesh: abstract_state(config, mesh), max_to_keep=1
            ) as saved:
                spent["restore"].append(time_call(lambda: jax.block_until_ready(saved.restore(mesh)[0])))
            return time.perf_counter() - began

        benchmark(run, warm_up=warm_up, repeats=repeats)
        timings = {name: Timing(all[0], tuple(all[warm_up:])) for name, all in spent.items()}
        _profiled(profile, run)
    return timings, {"state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state))}


def _profiled(folder: str, run: Any) -> None:
    """Once more under the profiler, where a folder is given: its files open in TensorBoard, XProf and Perfetto."""
    if folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            run()
