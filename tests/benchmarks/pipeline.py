"""Measures the overhead of data loading, logging, evaluation and saving, and the time to the first step of a run.

    python tests/benchmarks/pipeline.py --data packed [--rounds 8] [--steps 20] [--config configs/pretrain_small.py] \\
        [--config.batch_size=32 ...]

1. Steps: interleaved blocks of --steps steps, on one batch that stays and, as `electramed pretrain` runs them, on the
   loader's batches with sums collected, one entry of metrics a block written. The ratio of neighbouring blocks; wanted:
   at most 1.02.
2. Pauses: an evaluation of config.eval_batches batches and the pause of a save, against the time of the steps between
   two of them by the config's intervals (eval_every, save_every). Wanted: at most 3 % together.
3. --start: seconds from the command to the first step done, `electramed pretrain` in a process of its own: without kept
   programs, writing them, and reading them, interleaved.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import side_by_side

from electramed_jax.common import step_timer
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.loader import Loader, ordered_batches
from electramed_jax.model import flops
from electramed_jax.pretrain import evaluate, loop
from electramed_jax.pretrain.checkpoint import checkpoint_manager
from electramed_jax.pretrain.state import create
from electramed_jax.pretrain.step import compute_metrics, jit_eval_step, jit_train_step
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training import step as step_lib
from electramed_jax.training.step_metrics import StepMetrics


def seconds_of(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def steady(config: Config, dataset: Dataset, rounds: int, steps: int) -> None:
    mesh, data = sharding.make_mesh(config.mesh), config.data
    rows = sharding.batch_sharding(mesh)
    with (
        jax.set_mesh(mesh),
        tempfile.TemporaryDirectory() as workdir,
        Loader(dataset, "train", config.batch_size, data.seed, rows) as batches,
        metrics_writer.MetricsWriter(workdir, resumed_step=0) as log,
    ):
        state, train_step = create(config, mesh), jit_train_step(config, mesh)
        clock, constant = step_timer.StepTimer(), batches.at(0)
        report = StepMetrics(
            clock,
            config.total_steps,
            functools.partial(compute_metrics, config=config),
            step_flops=flops.train_step_flops(config),
            num_devices=mesh.size,
        )

        def alone() -> None:
            nonlocal state
            in_flight = []
            for _ in range(steps):
                state, sums = train_step(state, constant)
                in_flight.append(sums)
                if len(in_flight) > step_lib.MAX_STEPS_IN_FLIGHT:
                    jax.block_until_ready(in_flight.pop(0))
            jax.block_until_ready(state)

        def whole() -> None:
            nonlocal state
            for _ in range(steps):
                step = clock.step + 1
                state, sums = train_step(state, batches.at(step - 1))
                report.add(step, sums)
            log.write(step, "train", report.flush())

        whole(), alone()  # compiled, and files opened
        spent: dict[str, list[float]] = {"whole": [], "alone": []}
        for number in range(rounds):
            for name, run in [("whole", whole), ("alone", alone)][:: 1 if number % 2 else -1]:
                spent[name].append(seconds_of(run))
        print(f"steps: whole / constant batch {side_by_side.quartiles(side_by_side.ratios(spent, 'whole', 'alone'))}")
        pauses(config, dataset, state, mesh, workdir, statistics.median(spent["whole"]) / steps)


def pauses(
    config: Config, dataset: Dataset, state: state_lib.TrainState, mesh: jax.sharding.Mesh, workdir: str, step_s: float
) -> None:
    rows = sharding.batch_sharding(mesh)
    eval_step = jit_eval_step(config, mesh)

    def validate() -> None:
        held_out = ordered_batches(dataset, "validation", config.batch_size, rows, config.eval_batches)
        evaluate.evaluate(state.params, held_out, eval_step, config, stop=lambda: False)

    validate()
    evaluation = seconds_of(validate)
    with checkpoint_manager(workdir, config) as saved:
        saved.save(1, state, {})
        saved.retry_due()
        time.sleep(5.0)  # the first one is written by then; a run has minutes
        save = seconds_of(lambda: saved.save(2, state, {}))
    share = evaluation / (config.eval_every * step_s) + save / (config.save_every * step_s)
    print(
        f"pauses: evaluation {evaluation:.2f} s of {config.eval_batches} batches at most, save {save:.2f} s; a step "
        f"{step_s:.3f} s, so every {config.eval_every:,} and {config.save_every:,} steps {share:.2%} of the time"
    )


def start(settings: list[str], rounds: int) -> None:
    def first_step(workdir: str, steps: int, **environment: str) -> float:
        command = [sys.executable, "-m", "electramed_jax.cli", "pretrain", *settings, f"--workdir={workdir}"]
        began = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--stop_after={steps}"], stderr=subprocess.PIPE, text=True, env=os.environ | environment
        ) as process:
            seconds = [time.perf_counter() - began for line in process.stderr if line.startswith("first step")]
        (only,) = seconds
        return only

    spent: dict[str, list[float]] = {"without": [], "keeping": [], "finding": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
            first_step(a, 1, JAX_ENABLE_COMPILATION_CACHE="false")
            spent["keeping"].append(first_step(b, 1))
            spent["without"].append(first_step(a, 2, JAX_ENABLE_COMPILATION_CACHE="false"))
            spent["finding"].append(first_step(b, 2))
    times = ", ".join(f"{name} {side_by_side.quartiles(values)} s" for name, values in spent.items())
    print(
        f"start: {times}; finding / without {side_by_side.quartiles(side_by_side.ratios(spent, 'finding', 'without'))}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder made by electramed pack")
    parser.add_argument("--config", default="configs/pretrain_small.py")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--start", action="store_true")
    args, settings = parser.parse_known_args()
    settings = [f"--config={args.config}", f"--config.data.directory={args.data}", *settings]
    if args.start:
        start(settings, args.rounds)
    else:
        steady(*loop.resolve_with_dataset(config_lib.from_flags(settings)), args.rounds, args.steps)


if __name__ == "__main__":
    main()
