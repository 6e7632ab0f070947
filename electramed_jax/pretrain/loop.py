"""The story of a run: build, restore, step, measure, save, stop.

What holds, and where it is tested:
  * a batch is a function of the step, so a resumed run sees the rows it would have seen;
  * an interrupted and resumed run is bit-equal to an uninterrupted one on the same machine, its metrics included;
  * no checkpoint is written after a loss, gradient or parameter that was not finite;
  * processes see the same rows and numbers however many they are, and end together.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from electramed_jax.common import step_timer
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, training_display
from electramed_jax.common.processes.preemption import Preemption
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.common.tracking import metrics_writer as metrics
from electramed_jax.config.pretrain import Config, resolve, to_dict
from electramed_jax.data.dataset import dataset
from electramed_jax.data.dataset.loader import Loader, ordered_batches
from electramed_jax.pretrain import evaluate
from electramed_jax.pretrain.alerts import Alert, AlertMonitor
from electramed_jax.pretrain.checkpoint import PretrainCheckpointManager
from electramed_jax.pretrain.log_lines import SHOWN, entry_line
from electramed_jax.pretrain.state import create
from electramed_jax.pretrain.step import jit_eval_step, jit_train_step
from electramed_jax.training import compilation_cache, sharding, starts
from electramed_jax.training import state as state_lib
from electramed_jax.training.step_metrics import NonFiniteError, StepMetrics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    step: int
    preempted: bool
    metrics: dict[str, float]  # of the last validation, prefixed "validation_"
    alerts: tuple[Alert, ...] = ()  # of the sanity watch, since the run's first step; of the main process


def run_pretraining(
    config: Config,
    workdir: str,
    *,
    init_params: state_lib.Params | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Trains until `config.total_steps`, or until told to stop, from the workdir's newest checkpoint where
    there is one.

    Args:
      config: resolved against the dataset of `config.data.directory` (`resolve_with_dataset`).
      workdir: checkpoints, metrics and the files that explain them.
      init_params: parameters to start from instead of fresh ones; ignored where there is a checkpoint.
      stop_after: save and end after this step; the schedule still runs to `total_steps`.

    Raises:
      UserError: the workdir holds another model, the batch does not divide, the data or every checkpoint is damaged,
        the disk is full, or a number was not finite.
    """
    mesh = sharding.make_mesh(config.mesh)
    rows = sharding.batch_sharding(mesh)
    train_step = jit_train_step(config, mesh)  # before the workdir is this run's: it may refuse the batch
    eval_step = jit_eval_step(config, mesh)
    data, cache = config.data, _cache(config)
    with (
        jax.set_mesh(mesh),
        compilation_cache.use_compilation_cache(workdir),
        Preemption(config.grace_seconds).watched() as preemption,
        Loader(
            data.directory, "train", config.batch_size, data.seed, rows, weights=data.weights, cache=cache
        ) as batches,
        PretrainCheckpointManager(workdir, config) as saved,
    ):
        state, clock, untold = _start(config, mesh, saved, init_params)
        for line in batches.shares(config.total_steps):
            log_main(line)
        report = StepMetrics(config, clock, mesh.size, untold)
        started, validation = clock.step, {}
        starts.record_start(workdir, started)
        end = config.total_steps if stop_after is None else min(stop_after, config.total_steps)

        def due(step: int, every: int) -> bool:
            return step % every == 0 or step == config.total_steps

        with (
            metrics.MetricsWriter(
                workdir, resumed_step=started, trackers=config.trackers, settings=to_dict(config)
            ) as log,
            training_display("pretrain", started, config.total_steps, SHOWN) as live,
        ):
            watch = _watch(workdir, config)

            def record(step: int, split: str, figures: dict[str, float]) -> None:
                log.write(step, split, figures)
                live.entry(split, step, figures, entry_line(split, step, config.total_steps, figures))
                for alert in watch.see({"step": step, "split": split} | figures):
                    live.alert(str(alert))

            def save(step: int, *, last: bool) -> None:
                kept = report.saved()
                log.flush()
                with live.stage("saving"), clock.paused():
                    saved.save(step, state, kept, last=last)

            def validate(step: int) -> dict[str, float]:
                limit = config.eval_batches
                held_out = ordered_batches(data.directory, "validation", config.batch_size, rows, limit, cache=cache)
                with live.stage("validating"):
                    means = evaluate.evaluate(state.params, held_out, eval_step, config, stop=preemption.reached)
                if means is None:
                    return {}
                record(step, "validation", means)
                return means

            if started and due(started, config.eval_every):
                if not metrics.has_entry(workdir, started, "validation"):  # stopped right after its save
                    validation = validate(started)
            stopping = preemption.reached()
            try:
                while clock.step < end and not stopping:
                    step = clock.step + 1
                    state, sums = train_step(state, batches.at(step - 1))
                    report.add(step, sums)
                    live.at(step)
                    if step == 1 or due(step, config.log_every):
                        record(step, "train", report.close(step))
                    if (
                        step == end
                        or due(step, config.save_every)
                        or (due(step, config.log_every) and saved.retry_due())
                    ):
                        save(step, last=step == end)
                    if due(step, config.eval_every):
                        report.check()
                        with clock.paused():
                            validation = validate(step)
                    stopping = preemption.reached()
                if stopping and clock.step > started:
                    save(clock.step, last=True)
            except NonFiniteError as error:  # the figures that say so stay, for a report
                record(error.step, "train", error.figures)
                raise
    if clock.step > started:
        log_main(f"saved step {clock.step:,} in {workdir}")
    elif stopping:
        log_main(f"{workdir}: told to stop before a step was done; nothing to save")
    else:
        log_main(f"{workdir}: step {started:,} was reached before; nothing left to train")
    named = {f"validation_{name}": value for name, value in validation.items()}
    return Outcome(clock.step, stopping, named, tuple(watch.raised))


def resolve_with_dataset(config: Config) -> Config:
    """The config with what its packed dataset decides filled in and everything checked."""
    if not config.data.directory:
        raise UserError("no dataset; add --config.data.directory=DIR, a folder written by electramed pack")
    manifest = dataset.open_dataset(config.data.directory).manifest
    return resolve(
        config,
        vocab_size=manifest.vocab_size,
        row_length=manifest.row_length,
        special=manifest.special,
    )


def _watch(workdir: str, config: Config) -> AlertMonitor:
    """The sanity watch, which has seen what the run's processes wrote so far; the main one looks, for all."""
    manifest = dataset.open_dataset(config.data.directory).manifest
    if not distributed.is_main():
        return AlertMonitor(config, manifest)
    return AlertMonitor(
        config, manifest, metrics.read_metrics(workdir), [start["step"] for start in starts.read_starts(workdir)]
    )


def _cache(config: Config) -> DiskCache | None:
    data = config.data
    return DiskCache(data.cache_directory, int(data.cache_gigabytes * 1e9)) if data.cache_directory else None


def _start(
    config: Config, mesh: Any, saved: PretrainCheckpointManager, init_params: state_lib.Params | None
) -> tuple[state_lib.TrainState, step_timer.StepTimer, dict[str, float]]:
    """The state, the clock and the sums not reported yet, of the newest checkpoint or of a fresh run."""
    if restored := saved.restore(mesh):
        state, kept = restored
        untold = kept.pop("untold", {})
        log_main(f"going on from step {kept['step']:,} on {_devices()}")
        return state, step_timer.StepTimer(**kept), untold
    state = create(config, mesh)
    if init_params is not None:
        state = state_lib.with_params(state, init_params)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log_main(f"starting from step 0: {count:,} parameters on {_devices()}")
    return state, step_timer.StepTimer(), {}


def _devices() -> str:
    """ "8 cpu device(s)", and of how many processes where there are several."""
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{jax.device_count()} {jax.devices()[0].device_kind} device(s){processes}"
