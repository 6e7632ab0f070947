"""Benchmarks of a train step, the input pipeline and a checkpoint on this machine, for `electramed bench`."""

from __future__ import annotations

import functools
import importlib.metadata
import itertools
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from electramed_jax import __version__
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.step_timer import StepTimer
from electramed_jax.common.timing import Timing, benchmark, time_call
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.dataset.loader import Loader
from electramed_jax.data.dataset.synthetic_loader import SyntheticLoader
from electramed_jax.model import flops
from electramed_jax.model.automatic import choose
from electramed_jax.pretrain import automatic
from electramed_jax.pretrain.state import abstract_state, create
from electramed_jax.training import checkpoint, sharding

VERSIONS = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def machine_info() -> dict[str, Any]:
    """Returns devices, cores and versions of this machine, to be printed with each result."""
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
    """Returns a loader of the config's dataset, or of random rows if the config has none."""
    rows, data = sharding.batch_sharding(sharding.make_mesh(config.mesh)), config.data
    if data.directory:
        return Loader(open_dataset(data.directory), "train", config.batch_size, data.seed, rows, weights=data.weights)
    return SyntheticLoader(config.batch_size, data.max_seq_length, config.model.vocab_size, data.seed, rows)


def bench_step(config: Config, *, warm_up: int, repeats: int, profile: str) -> tuple[Timing, dict[str, Any]]:
    """Times a train step on one batch, from its dispatch until the new state is computed.

    Args:
      config: the resolved config; settings that are "auto" are chosen here.
      warm_up: untimed repeats.
      repeats: timed repeats.
      profile: folder for a profile of one more repeat; empty for none.

    Returns:
      The timing, and for its median: tokens_per_second (non-pad), model_flops, model_flops_per_second and, if the peak
      of the device is known, model_flops_utilization.
    """
    devices = automatic.detect_devices()
    choice = choose(config, devices)
    mesh = sharding.make_mesh(choice.config.mesh)
    choice, train_step = automatic.compile_train_step(choice, devices, mesh)
    config = choice.config
    for line in choice.lines():
        log_main(f"automatic setting {line}")
    with jax.set_mesh(mesh), open_loader(config) as loader:
        batch = loader.at(0)
        tokens = int(np.sum(np.asarray(jax.device_get(batch["input_ids"])) != config.data.special.pad))
        state = create(config, mesh)

        def run() -> None:
            nonlocal state
            state, sums = train_step(state, batch)
            jax.block_until_ready((state, sums))

        timing = benchmark(lambda: time_call(run), warm_up=warm_up, repeats=repeats)
        _profile(profile, run)
    step_flops = flops.train_step_flops(config)
    results = {
        "tokens_per_second": tokens / timing.median,
        "model_flops": step_flops,
        "model_flops_per_second": step_flops / timing.median,
    }
    if peak := flops.peak_flops(jax.devices()[0].device_kind):
        results["model_flops_utilization"] = step_flops / timing.median / (peak * mesh.size)
    return timing, results


def bench_data(
    config: Config, *, batches: int, warm_up: int, repeats: int, profile: str
) -> tuple[Timing, dict[str, Any]]:
    """Times the input pipeline: `batches` consecutive batches, each until it is on the devices, without train steps.

    Args:
      config, warm_up, repeats, profile: as for `bench_step`.
      batches: number of batches in a repeat.

    Returns:
      The timing, and for its median: batches, rows_per_second and slots_per_second (tokens, padding included).
    """
    with open_loader(config) as loader:
        next_batch = itertools.count()

        def run() -> None:
            for index in itertools.islice(next_batch, batches):
                jax.block_until_ready(loader.at(index))

        timing = benchmark(lambda: time_call(run), warm_up=warm_up, repeats=repeats)
        _profile(profile, run)
    rows = batches * config.batch_size / timing.median
    return timing, {"batches": batches, "rows_per_second": rows, "slots_per_second": rows * config.data.max_seq_length}


def bench_checkpoint(
    config: Config, folder: str, *, warm_up: int, repeats: int, profile: str
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Times saving and restoring the train state of step 0.

    Args:
      config, warm_up, repeats, profile: as for `bench_step`.
      folder: for the checkpoints; empty or new.

    Returns:
      The timings of "pause" (training is blocked), "save" (until the checkpoint is complete, pause included) and
      "restore", and state_bytes.
    """
    config = choose(config, automatic.detect_devices()).config
    mesh = sharding.make_mesh(config.mesh)
    manager = functools.partial(
        checkpoint.CheckpointManager, folder, functools.partial(abstract_state, config), max_to_keep=1
    )
    with jax.set_mesh(mesh):
        state = create(config, mesh)
        jax.block_until_ready(state)
        seconds: dict[str, list[float]] = {"pause": [], "save": [], "restore": []}

        def restore(checkpoints: checkpoint.CheckpointManager) -> None:
            restored = checkpoints.restore(mesh)
            assert restored is not None, "saved above"
            jax.block_until_ready(restored[0])

        def run() -> float:
            step, began = len(seconds["save"]), time.perf_counter()
            with manager() as checkpoints:
                opened = time.perf_counter()
                checkpoints.save(step, state, StepTimer(step).state_dict())
                seconds["pause"].append(time.perf_counter() - opened)
            seconds["save"].append(time.perf_counter() - opened)
            with manager() as checkpoints:
                seconds["restore"].append(time_call(functools.partial(restore, checkpoints)))
            return time.perf_counter() - began

        benchmark(run, warm_up=warm_up, repeats=repeats)
        timings = {name: Timing(values[0], tuple(values[warm_up:])) for name, values in seconds.items()}
        _profile(profile, run)
    return timings, {"state_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state))}


def _profile(folder: str, run: Callable[[], Any]) -> None:
    """Calls `run` under the profiler, if a folder is given; TensorBoard, XProf and Perfetto open its files."""
    if folder:
        with jax.profiler.trace(folder, create_perfetto_trace=True):
            run()
