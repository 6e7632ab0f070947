"""Trains all seeds of a fine-tuning run and writes their results."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, warn_main
from electramed_jax.common.processes.preemption import Preemption
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import results
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import TRAIN, Task
from electramed_jax.finetune.training import loop, workdir
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      preempted: whether SIGTERM ended it; the same command resumes it.
      results: the content of results.json; {} if no seed is finished.
    """

    preempted: bool
    results: Mapping[str, Any]


def run_finetuning(
    config: FinetuneConfig, task: Task, encoder: InitEncoder, spec: ModelSpec, run_folder: str
) -> Outcome:
    """Trains every seed that is not finished and writes results.json and results.md.

    Args:
      config: checked settings.
      encoder: initial parameters of every seed.
      run_folder: the workdir; an earlier run there is resumed.

    Raises:
      UserError: see `workdir.init_workdir` and `loop.run_seed`.
    """
    for line in task.summary_lines():
        log_main(line)
    for line in task.data_warnings():
        warn_main(f"warning: {line}")
    workdir.init_workdir(run_folder, config, spec, encoder, task)
    meshes = make_meshes(config)
    total_steps = loop.total_steps(config, len(task.examples(TRAIN)))
    train_spec = TrainSpec(
        encoder.model,
        task.head,
        spec.special,
        config.optimizer,
        total_steps,
        config.gradient_accumulation_steps,
        config.r_drop,
    )
    finished: dict[int, dict[str, Any]] = {}
    run_results: results.Results = {}
    started, preempted = time.monotonic(), False
    grace_seconds = config.preemption_grace_seconds
    watched = distributed.get_watchdog().limits(0.0, grace_seconds)
    with watched, Preemption(grace_seconds).listen() as preemption:
        runner_of = {mesh: loop.make_seed_runner(config, task, train_spec, mesh) for mesh in dict.fromkeys(meshes)}
        runners = [runner_of[mesh] for mesh in meshes]
        log_main(_first_line(config, task, encoder, runners, total_steps))
        for seed, scores in _train_seeds(runners, encoder, run_folder, preemption.reached):
            if scores is None:
                preempted = True
                continue
            finished[seed] = scores
            in_order = [finished[number] for number in sorted(finished)]
            run_results = results.gather_results(config, task, encoder, in_order)
            if distributed.is_main():
                results.write_results(run_folder, run_results)
    if not preempted:
        for line in results.summary_lines(run_results):
            log_main(line)
        log_main(f"wrote {files.join(run_folder, workdir.TABLE_FILE)} after {time.monotonic() - started:.0f} s")
    return Outcome(preempted, run_results)


def make_meshes(config: FinetuneConfig) -> list[Mesh]:
    """Returns the mesh of each seed that is trained at the same time.

    Several devices are divided among the seeds, because programs with collectives must not meet on a device. A single
    device is shared.

    Raises:
      UserError: several processes train one seed at a time; or the settings of the mesh do not fit the devices.
    """
    count = min(config.parallel_seeds, config.seeds)
    if count == 1:
        return [sharding.make_mesh(config.mesh)]
    if jax.process_count() > 1:
        raise UserError(
            f"config.parallel_seeds={config.parallel_seeds} is for one process; this run has {jax.process_count()}; "
            "use parallel_seeds=1"
        )
    devices = jax.devices()
    if len(devices) == 1:
        return [sharding.make_mesh(config.mesh)] * count
    count = min(count, len(devices))
    size = len(devices) // count
    return [sharding.make_mesh(config.mesh, devices[size * part : size * (part + 1)]) for part in range(count)]


def _first_line(
    config: FinetuneConfig, task: Task, encoder: InitEncoder, runners: Sequence[loop.SeedRunner], total_steps: int
) -> str:
    runner = runners[0]
    sizes = " or ".join(map(str, runner.sizes))
    line = (
        f"{encoder.source}; {total_steps:,} steps of {config.batch_size} examples in {sizes} "
        f"rows of {task.max_length} tokens, on {runner.mesh.size} {jax.devices()[0].device_kind} device(s)"
    )
    return line if len(runners) == 1 else f"{line}; {len(runners)} seeds at a time"


def _train_seeds(
    runners: Sequence[loop.SeedRunner], encoder: InitEncoder, run_folder: str, preempted: loop.Stop
) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yields (seed, content of its scores.json) of each seed as it ends; None for one that `preempted` ended.

    Each runner trains one seed at a time. If a seed fails, the others save a checkpoint and stop.
    """
    config, failed = runners[0].config, threading.Event()
    seeds = range(config.seed, config.seed + config.seeds)

    def train(runner: loop.SeedRunner, seed: int) -> dict[str, Any] | None:
        with jax.set_mesh(runner.mesh):
            return loop.run_seed(runner, encoder, run_folder, seed, lambda: preempted() or failed.is_set())

    if len(runners) == 1:
        for seed in seeds:
            scores = train(runners[0], seed)
            yield seed, scores
            if scores is None:
                return
        return
    free: queue.SimpleQueue[loop.SeedRunner] = queue.SimpleQueue()
    for runner in runners:
        free.put(runner)

    def train_when_free(seed: int) -> dict[str, Any] | None:
        runner = free.get()
        try:
            return None if preempted() or failed.is_set() else train(runner, seed)
        finally:
            free.put(runner)

    with concurrent.futures.ThreadPoolExecutor(len(runners)) as pool:
        try:
            futures = {pool.submit(train_when_free, seed): seed for seed in seeds}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            failed.set()
            raise
