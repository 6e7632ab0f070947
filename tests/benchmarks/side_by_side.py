"""Shared by the benchmarks against torch: our step, interleaved rounds of all contenders, and their table."""

from __future__ import annotations

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from electramed_jax.config import presets
from electramed_jax.config import pretrain as config_lib
from electramed_jax.data.dataset.synthetic_loader import SPECIAL, SyntheticLoader
from electramed_jax.model.automatic import choose
from electramed_jax.pretrain.automatic import detect_devices
from electramed_jax.pretrain.state import create
from electramed_jax.pretrain.step import jit_train_step
from electramed_jax.training import sharding

VOCAB_SIZE = 31_090  # SciVocab's

Step = Callable[[], Any]  # begins one training step, and returns its loss, which float() waits for


def sized(preset: str, batch_size: int, row_length: int, **model: object) -> config_lib.Config:
    """Returns the config of a preset for random rows, with the automatic settings of this machine.

    Keyword arguments are settings of the model.
    """
    config = presets.PRESETS[preset]
    config = dataclasses.replace(config, batch_size=batch_size, model=dataclasses.replace(config.model, **model))
    config = config_lib.resolve(config, vocab_size=VOCAB_SIZE, max_seq_length=row_length, special=SPECIAL)
    return choose(config, detect_devices()).config


def random_batch(config: config_lib.Config) -> dict[str, jax.Array]:
    rows = sharding.batch_sharding(sharding.make_mesh(config.mesh))
    with SyntheticLoader(config.batch_size, config.data.max_seq_length, VOCAB_SIZE, 0, rows) as loader:
        return loader.at(0)


def our_step(config: config_lib.Config, batch: dict[str, jax.Array]) -> Step:
    mesh = sharding.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        state, train_step = create(config, mesh), jit_train_step(config, mesh)

    def step() -> jax.Array:
        nonlocal state
        with jax.set_mesh(mesh):
            state, sums = train_step(state, batch)
            return sums["loss_sum"]

    return step


def warm(name: str, step: Step, steps: int = 3) -> None:
    began = time.perf_counter()
    losses = [float(step()) for _ in range(steps)]
    print(
        f"{name}: warm after {time.perf_counter() - began:.1f} s, losses {losses[0]:.2f} to {losses[-1]:.2f}",
        flush=True,
    )


Seconds = dict[str, list[float]]


def rounds(steps: Mapping[str, Step], count: int, at_a_time: int = 1) -> tuple[Seconds, Seconds]:
    """Wall and processor seconds (user and system, all threads) a step, of every contender in every round.

    In a round a contender runs `at_a_time` steps, one given to the device after the other, as a training loop does.
    """
    wall, processor = ({name: [] for name in steps} for _ in range(2))
    for _ in range(count):
        for name, step in steps.items():
            cpu, began = _cpu_seconds(), time.perf_counter()
            losses = [step() for _ in range(at_a_time)]
            float(losses[-1])
            wall[name].append((time.perf_counter() - began) / at_a_time)
            processor[name].append((_cpu_seconds() - cpu) / at_a_time)
    return wall, processor


def ratios(seconds: Seconds, of: str, to: str) -> list[float]:
    """Returns the ratio of each round, in which both ran under the same load."""
    return [a / b for a, b in zip(seconds[of], seconds[to], strict=True)]


def quartiles(values: list[float]) -> str:
    """Returns median and quartiles: `1.234 [1.200, 1.300]`."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
