"""Trains all seeds of a fine-tuning run and writes their results."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax

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
    mesh = sharding.make_mesh(config.mesh)
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
    finished: list[dict[str, Any]] = []
    run_results: results.Results = {}
    started, preempted = time.monotonic(), False
    with jax.set_mesh(mesh), Preemption(config.preemption_grace_seconds).listen() as preemption:
        runner = loop.make_seed_runner(config, task, train_spec, mesh)
        sizes = " or ".join(map(str, runner.sizes))
        log_main(
            f"{encoder.source}; {total_steps:,} steps of {config.batch_size} examples in {sizes} "
            f"rows of {task.max_length} tokens, on {jax.device_count()} {jax.devices()[0].device_kind} device(s)"
        )
        for seed in range(config.seed, config.seed + config.seeds):
            scores = loop.run_seed(runner, encoder, run_folder, seed, preemption.reached)
            if scores is None:
                preempted = True
                break
            finished.append(scores)
            run_results = results.gather_results(config, task, encoder, finished)
            if distributed.is_main():
                results.write_results(run_folder, run_results)
    if not preempted:
        for line in results.summary_lines(run_results):
            log_main(line)
        log_main(f"wrote {files.join(run_folder, workdir.TABLE_FILE)} after {time.monotonic() - started:.0f} s")
    return Outcome(preempted, run_results)
