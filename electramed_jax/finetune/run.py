"""All seeds of a run, and the results they come to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax

from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.processes.preemption import Preemption
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import results
from electramed_jax.finetune.task import model_spec
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import TRAIN, Task
from electramed_jax.finetune.training import loop, workdir
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    preempted: bool
    results: Mapping[str, Any]  # what results.json holds; {} where no seed is done


def run(
    config: FinetuneConfig, task: Task, start: InitEncoder, described: model_spec.ModelSpec, folder: str
) -> Outcome:
    """Trains every seed that is not done yet and writes results.json and results.md.

    Args:
      config: checked.
      task: with its examples.
      start: what every seed starts from.
      folder: the workdir; the same one goes on.

    Raises:
      UserError: see `workdir.claim` and `loop.run_seed`.
    """
    for line in task.told():
        log_main(line)
    workdir.init_workdir(folder, config, described, start, task)
    mesh = sharding.make_mesh(config.mesh)
    total = loop.total_steps(config, len(task.examples(TRAIN)))
    spec = TrainSpec(start.model, task.head, described.special, config.optimizer, total)
    seeds = range(config.seed, config.seed + config.seeds)
    done: list[dict[str, Any]] = []
    began, stopped = time.monotonic(), False
    with jax.set_mesh(mesh), Preemption(config.preemption_grace_seconds).listen() as preemption:
        runner = loop.make_seed_runner(config, task, spec, mesh)
        log_main(
            f"{start.source}; {total:,} steps of {config.batch_size} examples in {runner.rows} rows of "
            f"{task.max_length} tokens, on {jax.device_count()} {jax.devices()[0].device_kind} device(s)"
        )
        for seed in seeds:
            scores = loop.run_seed(runner, start, folder, seed, preemption.reached)
            if scores is None:
                stopped = True
                break
            done.append(scores)
            found = results.gather(config, task, start, done)
            if distributed.is_main():
                results.write(folder, found)
    if not done:
        return Outcome(stopped, {})
    if not stopped:
        for line in results.told(found):
            log_main(line)
        log_main(f"wrote {files.join(folder, workdir.TABLE_FILE)} after {time.monotonic() - began:.0f} s")
    return Outcome(stopped, found)
