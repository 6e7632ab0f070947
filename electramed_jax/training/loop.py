"""The story of a run: build, restore, step, measure, save, stop.

What holds, and where it is tested:
  * a batch is a function of the step, so a resumed run sees the rows it would have seen;
  * an interrupted and resumed run is bit-equal to an uninterrupted one on the same machine;
  * no checkpoint is written after a loss or gradient that was not finite.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from electramed_jax.common import chrono, distributed, files
from electramed_jax.common.errors import UserError
from electramed_jax.common.metrics import MetricsWriter
from electramed_jax.config import Config, resolve
from electramed_jax.data import manifest as manifests
from electramed_jax.data.loader import Loader, ordered_batches
from electramed_jax.training import checkpoint, evaluate, sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training import step as step_lib
from electramed_jax.training.report import Report, metrics_line, tell


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    preempted: bool
    metrics: dict[str, float]  # of the last validation, prefixed "validation_"


def run(
    config: Config, workdir: str, *, init_params: state_lib.Params | None = None, stop_after: int | None = None
) -> Outcome:
    """Trains until `config.total_steps`, or until told to stop, from the workdir's newest checkpoint where there is one.

    Args:
      config: resolved against the dataset of `config.data.directory` (`resolve_with_dataset`).
      workdir: checkpoints, metrics and the files that explain them.
      init_params: parameters to start from instead of fresh ones; ignored where there is a checkpoint.
      stop_after: end after this step as if preempted; the schedule still runs to `total_steps`.

    Raises:
      UserError: the workdir holds another model, the batch does not divide, the data is damaged, the disk is full, or the
        loss was not finite.
    """
    mesh = sharding.make_mesh(config.mesh)
    rows = sharding.batch_sharding(mesh)
    directory, vocab = config.data.directory, files.join(config.data.directory, manifests.VOCAB_FILE)
    with (
        jax.set_mesh(mesh),
        distributed.Preemption().watched() as preemption,
        Loader(directory, "train", config.batch_size, config.data.seed, rows) as batches,
        checkpoint.Checkpoints(workdir, config, vocab_path=vocab) as saved,
    ):
        state, clock = _start(config, mesh, saved, init_params)
        train_step = step_lib.jit_train_step(config, mesh)
        eval_step = step_lib.jit_eval_step(config, mesh)
        report = Report(config, clock, mesh.size)
        validation: dict[str, float] = {}
        with MetricsWriter(workdir, resumed_step=clock.step) as log:
            for step in range(clock.step + 1, config.total_steps + 1):
                state, sums = train_step(state, batches.at(step - 1))
                report.add(step, sums)

                stopping = preemption.reached(step) or step == stop_after
                last = stopping or step == config.total_steps
                if not report.started or last or step % config.log_every == 0:
                    log.write(step, "train", report.close(step))
                if last or step % config.save_every == 0:
                    report.check()
                    with clock.paused():
                        saved.save(step, state, clock.saved())
                if (step % config.eval_every == 0 or step == config.total_steps) and not stopping:
                    with clock.paused():
                        held_out = ordered_batches(directory, "validation", config.batch_size, rows, config.eval_batches)
                        validation = evaluate.run(state.params, held_out, eval_step, config)
                    log.write(step, "validation", validation)
                    tell(f"validation at step {step:,}: {metrics_line(validation)}")
                if stopping:
                    break
        saved.wait()
        tell(f"saved step {clock.step:,} in {workdir}")
    preempted = clock.step < config.total_steps and clock.step != stop_after
    return Outcome(clock.step, preempted, {f"validation_{name}": value for name, value in validation.items()})


def resolve_with_dataset(config: Config) -> Config:
    """The config with what its packed dataset decides filled in and everything checked."""
    if not config.data.directory:
        raise UserError("no dataset; add --config.data.directory=DIR, a folder written by electramed pack")
    manifest = manifests.read(config.data.directory)
    return resolve(config, vocab_size=manifest.vocab_size, row_length=manifest.row_length, special=manifest.special)


def _start(
    config: Config, mesh: Any, saved: checkpoint.Checkpoints, init_params: state_lib.Params | None
) -> tuple[state_lib.TrainState, chrono.Chrono]:
    if saved.latest_step() is not None:
        state, clock = saved.restore(mesh)
        tell(f"going on from step {clock['step']:,}")
        return state, chrono.Chrono(**clock)
    state = state_lib.create(config, mesh)
    if init_params is not None:
        state = state_lib.with_params(state, init_params)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    tell(f"starting from step 0: {count:,} parameters on {mesh.size} device(s)")
    return state, chrono.Chrono()
