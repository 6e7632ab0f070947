"""The pre-training loop: restore, step, log, validate, save, stop.

Guarantees, each with its tests in tests/pretrain/:
  * a batch is a function of the step, so a resumed run sees the rows that an uninterrupted one sees;
  * an interrupted and resumed run is bit-equal to an uninterrupted one on the same machine, its metrics included;
  * no checkpoint is written after a loss, gradient or parameter that is not finite;
  * all processes of a run see the same rows and numbers, whatever their number, and end together.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, training_display
from electramed_jax.common.processes.preemption import Preemption
from electramed_jax.common.progress_panel import TrainingDisplay
from electramed_jax.common.step_timer import StepTimer
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.pretrain import Config, resolve, to_dict
from electramed_jax.data.dataset.dataset import Dataset, open_dataset
from electramed_jax.data.dataset.loader import Loader, ordered_batches
from electramed_jax.model import flops
from electramed_jax.pretrain import evaluate
from electramed_jax.pretrain.alerts import Alert, AlertMonitor
from electramed_jax.pretrain.checkpoint import checkpoint_manager
from electramed_jax.pretrain.log_lines import SHOWN, entry_line
from electramed_jax.pretrain.state import create
from electramed_jax.pretrain.step import compute_metrics, jit_eval_step, jit_train_step
from electramed_jax.pretrain.workdir import init_workdir
from electramed_jax.training import sharding
from electramed_jax.training.checkpoint import CheckpointManager
from electramed_jax.training.compilation_cache import use_compilation_cache
from electramed_jax.training.starts import read_starts, record_start
from electramed_jax.training.state import Params, TrainState, replace_params
from electramed_jax.training.step_metrics import NonFiniteError, StepMetrics, pop_pending_sums


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: steps done.
      preempted: whether a signal ended the run before its last step.
      metrics: of the last validation of this process, prefixed "validation_".
      alerts: raised since the run's first step; empty in processes other than the main one.
    """

    step: int
    preempted: bool
    metrics: dict[str, float]
    alerts: tuple[Alert, ...] = ()


def resolve_with_dataset(config: Config) -> tuple[Config, Dataset]:
    """Returns the config, completed from its packed dataset and checked, and the dataset.

    Raises:
      UserError: no dataset is given, it cannot be read, or a setting contradicts it.
    """
    if not config.data.directory:
        raise UserError("no dataset; add --config.data.directory=DIR, a folder written by electramed pack")
    dataset = open_dataset(config.data.directory)
    manifest = dataset.manifest
    resolved = resolve(
        config, vocab_size=manifest.vocab_size, max_seq_length=manifest.row_length, special=manifest.special
    )
    return resolved, dataset


def run_pretraining(
    config: Config,
    dataset: Dataset,
    workdir: str,
    *,
    init_params: Params | None = None,
    stop_after: int | None = None,
) -> Outcome:
    """Trains until `config.total_steps` or a preemption, from the newest checkpoint of the workdir if it has one.

    Args:
      config, dataset: from `resolve_with_dataset`.
      workdir: folder of checkpoints, metrics and the files that explain them.
      init_params: initial parameters instead of random ones; ignored if there is a checkpoint.
      stop_after: save and end after this step; the schedule still runs to `total_steps`.

    Raises:
      UserError: the workdir holds another model, the batch does not divide, the data or every checkpoint is damaged,
        the disk is full, or a number is not finite.
    """
    mesh = sharding.make_mesh(config.mesh)
    train_step = jit_train_step(config, mesh)  # raises before the workdir is touched if the batch does not divide
    last_step = config.total_steps if stop_after is None else min(stop_after, config.total_steps)
    cache = _disk_cache(config)
    with (
        jax.set_mesh(mesh),
        use_compilation_cache(workdir),
        Preemption(config.preemption_grace_seconds).listen() as preemption,
        _train_batches(config, dataset, mesh, cache) as batches,
    ):
        init_workdir(workdir, config, dataset)
        with checkpoint_manager(workdir, config) as checkpoints:
            state, timer, pending_sums = _restore_or_create(config, mesh, checkpoints, init_params)
            first_step = timer.step
            for line in batches.mixture_summary(config.total_steps):
                log_main(line)
            record_start(workdir, first_step)
            with (
                _metrics_writer(config, workdir, first_step) as writer,
                training_display("pretrain", first_step, config.total_steps, SHOWN) as display,
            ):
                metrics = _step_metrics(config, timer, mesh, pending_sums)
                monitor = _alert_monitor(config, dataset, workdir)
                validation = _Validation(config, dataset, mesh, cache, preemption)
                run = _Run(config, state, timer, metrics, checkpoints, validation, writer, display, monitor)
                if first_step and run.is_due(first_step, config.eval_every):
                    if not metrics_writer.has_entry(workdir, first_step, "validation"):  # stopped right after its save
                        run.validate(first_step)
                stopping = preemption.reached()
                try:
                    while timer.step < last_step and not stopping:
                        step = timer.step + 1
                        run.state, sums = train_step(run.state, batches.at(step - 1))
                        metrics.add(step, sums)
                        display.set_step(step)
                        if step == 1 or run.is_due(step, config.log_every):
                            run.record(step, "train", metrics.flush())
                        if step == last_step or run.is_due(step, config.save_every) or run.is_retry_due(step):
                            run.save(step, last=step == last_step)
                        if run.is_due(step, config.eval_every):
                            run.validate(step)
                        stopping = preemption.reached()
                    if stopping and timer.step > first_step:
                        run.save(timer.step, last=True)
                except NonFiniteError as error:
                    run.record(error.step, "train", error.metrics)  # the report shows them
                    raise
    log_main(_end_line(workdir, first_step, timer.step, stopping))
    return Outcome(timer.step, stopping, run.validation_metrics, tuple(monitor.raised))


@dataclasses.dataclass
class _Run:
    """A run between its first and its last step: the train state, and what is done beside the steps."""

    config: Config
    state: TrainState
    timer: StepTimer
    metrics: StepMetrics
    checkpoints: CheckpointManager
    validation: _Validation
    writer: metrics_writer.MetricsWriter
    display: TrainingDisplay
    monitor: AlertMonitor
    validation_metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # the newest, "validation_loss", ...

    def is_due(self, step: int, every: int) -> bool:
        """Returns whether something done every so many steps, and at the last one, is done after `step`."""
        return step % every == 0 or step == self.config.total_steps

    def is_retry_due(self, step: int) -> bool:
        """Returns whether a save that storage refused is tried again after `step`."""
        return self.is_due(step, self.config.log_every) and self.checkpoints.retry_due()

    def record(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes and shows an entry of metrics, and the alerts that it raises."""
        self.writer.write(step, split, metrics)
        self.display.log_metrics(split, step, metrics, entry_line(split, step, self.config.total_steps, metrics))
        for alert in self.monitor.see({"step": step, "split": split} | metrics):
            self.display.alert(str(alert))

    def save(self, step: int, *, last: bool) -> None:
        """Starts a checkpoint of `step`; the last one of a process is waited for."""
        counters = self.metrics.state_dict()
        self.writer.flush()
        with self.display.stage("saving"), self.timer.paused():
            self.checkpoints.save(step, self.state, counters, last=last)

    def validate(self, step: int) -> None:
        """Records the validation metrics of the current parameters; nothing if a preemption interrupts it."""
        self.metrics.check_finite()
        with self.timer.paused(), self.display.stage("validating"):
            metrics = self.validation.run(self.state.params)
        if metrics is not None:
            self.record(step, "validation", metrics)
        self.validation_metrics = {f"validation_{name}": value for name, value in (metrics or {}).items()}


class _Validation:
    """The validation split, evaluated with the same rows and masks every time."""

    def __init__(self, config: Config, dataset: Dataset, mesh: Mesh, cache: DiskCache | None, preemption: Preemption):
        self._config, self._dataset, self._cache, self._preemption = config, dataset, cache, preemption
        self._sharding = sharding.batch_sharding(mesh)
        self._eval_step = jit_eval_step(config, mesh)

    def run(self, params: Params) -> dict[str, float] | None:
        """Returns the metrics by name, or None if a preemption interrupts the evaluation."""
        config = self._config
        batches = ordered_batches(
            self._dataset, "validation", config.batch_size, self._sharding, config.eval_batches, cache=self._cache
        )
        return evaluate.evaluate(params, batches, self._eval_step, config, stop=self._preemption.reached)


def _restore_or_create(
    config: Config, mesh: Mesh, checkpoints: CheckpointManager, init_params: Params | None
) -> tuple[TrainState, StepTimer, dict[str, float]]:
    """Returns train state, timer and pending metric sums: of the newest checkpoint, or of step 0."""
    if restored := checkpoints.restore(mesh):
        state, counters = restored
        pending_sums = pop_pending_sums(counters)
        log_main(f"resuming from step {counters['step']:,} on {_devices()}")
        return state, StepTimer(**counters), pending_sums
    state = create(config, mesh)
    if init_params is not None:
        state = replace_params(state, init_params)
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    log_main(f"starting from step 0: {count:,} parameters on {_devices()}")
    return state, StepTimer(), {}


def _train_batches(config: Config, dataset: Dataset, mesh: Mesh, cache: DiskCache | None) -> Loader:
    data, where = config.data, sharding.batch_sharding(mesh)
    return Loader(dataset, "train", config.batch_size, data.seed, where, weights=data.weights, cache=cache)


def _disk_cache(config: Config) -> DiskCache | None:
    data = config.data
    return DiskCache(data.cache_directory, int(data.cache_gigabytes * 1e9)) if data.cache_directory else None


def _metrics_writer(config: Config, workdir: str, step: int) -> metrics_writer.MetricsWriter:
    return metrics_writer.MetricsWriter(workdir, resumed_step=step, trackers=config.trackers, settings=to_dict(config))


def _step_metrics(config: Config, timer: StepTimer, mesh: Mesh, pending_sums: dict[str, float]) -> StepMetrics:
    return StepMetrics(
        timer,
        config.total_steps,
        functools.partial(compute_metrics, config=config),
        step_flops=flops.train_step_flops(config),
        num_devices=mesh.size,
        pending_sums=pending_sums,
    )


def _alert_monitor(config: Config, dataset: Dataset, workdir: str) -> AlertMonitor:
    """Returns the monitor of alerts; that of the main process has seen the entries of earlier processes."""
    if not distributed.is_main():
        return AlertMonitor(config, dataset.manifest)
    entries, starts = metrics_writer.read_metrics(workdir), [start["step"] for start in read_starts(workdir)]
    return AlertMonitor(config, dataset.manifest, entries, starts)


def _end_line(workdir: str, first_step: int, step: int, preempted: bool) -> str:
    if step > first_step:
        return f"saved step {step:,} in {workdir}"
    if preempted:
        return f"{workdir}: stopped by a signal before the first step; nothing to save"
    return f"{workdir}: all {step:,} steps are trained already; nothing to do"


def _devices() -> str:
    """Returns "8 cpu device(s)", and the number of processes if there are several."""
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{jax.device_count()} {jax.devices()[0].device_kind} device(s){processes}"
