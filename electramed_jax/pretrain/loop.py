"""The pre-training loop: restore, step, log, validate, save, stop.

Guarantees, each tested in tests/pretrain/:
  * the batch of a step is a pure function of (seed, batch size, step): a resumed run trains on the same rows as an
    uninterrupted one;
  * a resumed run is bit-identical to an uninterrupted one on the same machine, including its metrics;
  * no checkpoint is written after a loss, gradient or parameter that is not finite, after replicas of the parameters
    differ, after the data changed, or after another process took the workdir over;
  * all processes of a run train on the rows and log the numbers of a single-process run, and stop at the same step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.folder_owner import own_folder
from electramed_jax.common.processes.main_console import log_main, training_display
from electramed_jax.common.processes.preemption import Preemption
from electramed_jax.common.progress_panel import TrainingDisplay
from electramed_jax.common.run_clock import (
    COMPILATION,
    EVALUATION,
    INPUT_WAIT,
    RESTORE,
    SAVE,
    STEP,
    RunClock,
    describe_seconds,
)
from electramed_jax.common.step_timer import StepTimer
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.pretrain import Config, resolve, to_dict
from electramed_jax.data.dataset.dataset import Dataset, open_dataset
from electramed_jax.data.dataset.loader import Loader, ordered_batches
from electramed_jax.model import flops
from electramed_jax.pretrain import automatic, evaluate
from electramed_jax.pretrain.alerts import Alert, AlertMonitor
from electramed_jax.pretrain.checkpoint import checkpoint_manager
from electramed_jax.pretrain.inputs import RunGuard, check_space, guard_inputs
from electramed_jax.pretrain.log_lines import SHOWN, entry_line
from electramed_jax.pretrain.state import create
from electramed_jax.pretrain.step import compute_metrics, jit_eval_step, jit_train_step
from electramed_jax.pretrain.verdict import Verdict, judge
from electramed_jax.pretrain.workdir import init_workdir, write_workdir_files
from electramed_jax.training import fingerprint, sharding
from electramed_jax.training.checkpoint import CheckpointManager, RunCounters
from electramed_jax.training.compilation_cache import use_compilation_cache
from electramed_jax.training.memory import memory_metrics
from electramed_jax.training.stalled_starts import limit_stalled_starts
from electramed_jax.training.starts import RunRecord, read_starts, split_wall_time
from electramed_jax.training.state import Params, TrainState, replace_params
from electramed_jax.training.step_metrics import NonFiniteError, StepMetrics, pop_pending_sums


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of `run_pretraining`.

    Attributes:
      step: number of steps trained.
      preempted: whether the run received a preemption signal.
      metrics: metrics of this process's last validation, with the prefix "validation_".
      alerts: alerts since the first step of the run; in other processes than the main one, since its own first step.
      verdict: on the whole run; None in other processes than the main one.
      wall_time: seconds of each part of the whole run, restarts included; empty in other processes.
    """

    step: int
    preempted: bool
    metrics: dict[str, float]
    alerts: tuple[Alert, ...] = ()
    verdict: Verdict | None = None
    wall_time: dict[str, float] = dataclasses.field(default_factory=dict)


def resolve_with_dataset(config: Config) -> tuple[Config, Dataset]:
    """Returns the checked config, with the settings that its packed dataset determines, and the dataset.

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
    takeover: bool = False,
    clock: RunClock | None = None,
) -> Outcome:
    """Trains up to `config.total_steps` or a preemption, from the newest checkpoint of the workdir if it has one.

    Args:
      config, dataset: from `resolve_with_dataset`.
      workdir: folder of the checkpoints, the metrics and the files that describe them.
      init_params: initial parameters instead of random ones; ignored if there is a checkpoint.
      stop_after: save and stop after this step; the learning-rate schedule still ends at `total_steps`.
      takeover: take over the workdir from a run on another host that has ended; see `folder_lock.lock_folder`.
      clock: splits the time since the start of the command; None: since this call.

    Raises:
      UserError: another run owns the workdir, it holds another model, the batch size does not divide over the mesh,
        data or every checkpoint is damaged, the disk is full, or a loss, gradient or parameter is not finite.
    """
    clock = clock or RunClock()
    devices = automatic.detect_devices()
    choice = automatic.choose_for_workdir(config, devices, workdir)
    mesh = sharding.make_mesh(choice.config.mesh)
    with clock.during(COMPILATION):
        choice, failed_checks = automatic.prove_kernels(choice, mesh)
    jit_train_step(choice.config, mesh)  # raises before the workdir is touched if the batch does not divide
    last_step = config.total_steps if stop_after is None else min(stop_after, config.total_steps)
    cache = _disk_cache(config)
    with (
        clock.count_compilation(),
        jax.set_mesh(mesh),
        own_folder(workdir, takeover=takeover) as owner,
        use_compilation_cache(workdir) as compiled,
        distributed.get_watchdog().limits(config.hang_seconds, config.preemption_grace_seconds),
        Preemption(config.preemption_grace_seconds).listen() as preemption,
        guard_inputs(config, dataset, owner) as guard,
        _train_batches(config, dataset, mesh, cache) as batches,
    ):
        earlier = init_workdir(workdir, choice.config, dataset)
        check_space(choice.config, workdir, mesh)
        with clock.during(COMPILATION):
            choice, train_step = automatic.compile_train_step(choice, devices, mesh)
        config = choice.config
        for line in choice.lines():
            log_main(f"automatic setting {line}")

        for line in batches.mixture_summary(config.total_steps):
            log_main(line)
        with _open_trainer(
            config, dataset, workdir, mesh, init_params, earlier, guard, preemption, cache, clock
        ) as trainer:
            first_step = trainer.timer.step
            kernel_alerts = automatic.kernel_alerts(failed_checks, first_step)
            trainer.show_alerts(kernel_alerts)

            def write_settings() -> None:
                write_workdir_files(workdir, config, dataset)
                automatic.record_choice(workdir, choice, devices, kernel_alerts)
                if compiled is not None:
                    compiled.store()

            trainer.validate_if_missed(workdir)
            preempted = trainer.train(train_step, batches, last_step, preemption, on_first_step=write_settings)
            clock.enter(SAVE)  # what is left is to finish the save
    log_main(_end_line(workdir, first_step, trainer.timer.step, preempted))
    return _outcome(trainer, workdir, dataset, preempted, kernel_alerts)


def _outcome(
    trainer: _Trainer, workdir: str, dataset: Dataset, preempted: bool, kernel_alerts: Sequence[Alert]
) -> Outcome:
    """Returns the outcome of a run; the main process judges its metrics and prints the verdict."""
    alerts = trainer.monitor.raised
    verdict, wall_time = None, {}
    if distributed.is_main():
        if wall_time := split_wall_time(read_starts(workdir)):
            log_main(f"wall time {describe_seconds(wall_time)}")
        verdict = judge(metrics_writer.read_metrics(workdir), trainer.config, dataset.manifest, alerts)
        log_main(str(verdict))
    every_alert = (*kernel_alerts, *alerts)
    return Outcome(trainer.timer.step, preempted, trainer.validation_metrics, every_alert, verdict, wall_time)


@dataclasses.dataclass
class _Trainer:
    """The train state of a run, and the objects that log, save and validate it."""

    config: Config
    state: TrainState
    timer: StepTimer
    metrics: StepMetrics
    checkpoints: CheckpointManager
    validation: _Validation
    writer: metrics_writer.MetricsWriter
    display: TrainingDisplay
    monitor: AlertMonitor
    guard: RunGuard
    record: RunRecord
    clock: RunClock
    validation_metrics: dict[str, float] = dataclasses.field(default_factory=dict)  # the newest, "validation_loss", ...

    def train(
        self,
        train_step: Callable[..., Any],
        batches: Loader,
        last_step: int,
        preemption: Preemption,
        *,
        on_first_step: Callable[[], None],
    ) -> bool:
        """Trains up to `last_step` or until a preemption, and saves the last state.

        `on_first_step` is called after the first step: from then on the settings of this start count.

        Returns:
          Whether a preemption was received.
        """
        config, first_step, watchdog = self.config, self.timer.step, distributed.get_watchdog()
        preempted = preemption.reached()
        self.clock.enter(STEP)
        try:
            while self.timer.step < last_step and not preempted:
                step = self.timer.step + 1
                with watchdog.waiting("batch", step), self.clock.during(INPUT_WAIT):
                    batch = batches.at(step - 1)
                # The first call compiles, and its step is short.
                with watchdog.waiting("step", step), self.clock.during(STEP if step > first_step + 1 else COMPILATION):
                    self.state, sums = train_step(self.state, batch)
                    self.metrics.add(step, sums)
                self.record.record_step(step)
                if step == first_step + 1:
                    log_main(f"first step after {describe_seconds(self.clock.seconds())}")
                    on_first_step()
                self.display.set_step(step)
                if step == 1 or self.is_due(step, config.log_every):
                    self._record(step, "train", self.metrics.flush() | memory_metrics())
                if step == last_step or self.is_due(step, config.save_every) or self._is_retry_due(step):
                    self._save(step, wait=step == last_step)
                elif config.check_every and self.is_due(step, config.check_every):
                    self._check_replicas(step)
                self.validate_if_due(step)
                preempted = preemption.reached()
            if preempted:
                self.record.end = "preempted"
                if self.timer.step > first_step:
                    self._save(self.timer.step, wait=True)
        except NonFiniteError as error:
            self._record(error.step, "train", error.metrics)  # so that `electramed report` shows them
            raise
        return preempted

    def validate_if_missed(self, workdir: str) -> None:
        """Validates the restored parameters if the process before was stopped between their save and validation."""
        step = self.timer.step
        due = step > 0 and self.is_due(step, self.config.eval_every)
        if due and not metrics_writer.has_entry(workdir, step, "validation"):
            self.validate_if_due(step)

    def validate_if_due(self, step: int) -> None:
        """Records the validation metrics of the current parameters at every `eval_every` steps.

        A preemption interrupts the evaluation; nothing is recorded then.
        """
        if not self.is_due(step, self.config.eval_every):
            return
        self.metrics.check_finite()
        watched = distributed.get_watchdog().waiting("evaluation", step)
        with self.timer.paused(), self.display.stage("validating"), self.clock.during(EVALUATION), watched:
            metrics = self.validation.run(self.state.params)
        if metrics is not None:
            self._record(step, "validation", metrics)
        self.validation_metrics = {f"validation_{name}": value for name, value in (metrics or {}).items()}

    def is_due(self, step: int, every: int) -> bool:
        """Returns whether `step` is a multiple of `every`, or the last step of the run."""
        return step % every == 0 or step == self.config.total_steps

    def _is_retry_due(self, step: int) -> bool:
        """Returns whether a checkpoint that could not be written is to be written again."""
        return self.is_due(step, self.config.log_every) and self.checkpoints.retry_due()

    def _record(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes and displays metrics, and the alerts they raise."""
        self.writer.write(step, split, metrics)
        self.display.log_metrics(split, step, metrics, entry_line(split, step, self.config.total_steps, metrics))
        self.show_alerts(self.monitor.update({"step": step, "split": split} | metrics))

    def show_alerts(self, alerts: Sequence[Alert]) -> None:
        """Displays alerts."""
        for alert in alerts:
            self.display.alert(str(alert))

    def _check_replicas(self, step: int) -> None:
        """Raises a UserError if the devices do not hold the same parameters; every save checks them, too."""
        with self.timer.paused(), self.clock.during(SAVE), distributed.get_watchdog().waiting("save", step):
            mesh = self.validation.mesh
            fingerprint.check_replicas(fingerprint.state_checksum(self.state, mesh), step)

    def _save(self, step: int, *, wait: bool) -> None:
        """Starts an asynchronous save of `step`, and with `wait` blocks until it is complete."""
        with self.clock.during(SAVE):
            self.guard.check()
        counters = self.metrics.state_dict()
        watched = distributed.get_watchdog().waiting("save", step)
        with self.display.stage("saving"), self.timer.paused(), self.clock.during(SAVE), watched:
            self.writer.flush()
            self.checkpoints.save(step, self.state, counters, wait=wait)
            self.record.record_seconds(step)


class _Validation:
    """Evaluates parameters on the validation split, with the same rows and masks every time."""

    def __init__(self, config: Config, dataset: Dataset, mesh: Mesh, cache: DiskCache | None, preemption: Preemption):
        self._config, self._dataset, self._cache, self._preemption = config, dataset, cache, preemption
        self.mesh, self._sharding = mesh, sharding.batch_sharding(mesh)
        self._eval_step = jit_eval_step(config, mesh)

    def run(self, params: Params) -> dict[str, float] | None:
        """Returns the metrics by name, or None if a preemption interrupts the evaluation."""
        config = self._config
        batches = ordered_batches(
            self._dataset, "validation", config.batch_size, self._sharding, config.eval_batches, cache=self._cache
        )

        def stop() -> bool:
            distributed.get_watchdog().note_progress()
            return self._preemption.reached()

        return evaluate.evaluate(params, batches, self._eval_step, config, stop=stop)


@contextlib.contextmanager
def _open_trainer(
    config: Config,
    dataset: Dataset,
    workdir: str,
    mesh: Mesh,
    init_params: Params | None,
    earlier: Config | None,
    guard: RunGuard,
    preemption: Preemption,
    cache: DiskCache | None,
    clock: RunClock,
) -> Iterator[_Trainer]:
    """Restores or creates the train state, and opens the checkpoints, the metrics and the display of a run."""
    with checkpoint_manager(workdir, config) as checkpoints:
        with clock.during(RESTORE):
            restored = checkpoints.restore(mesh)
        state, timer, pending_sums = _start_state(config, mesh, restored, init_params)
        with (
            limit_stalled_starts(workdir, timer.step, config.max_stalled_starts),
            _run_record(config, dataset, workdir, timer.step, earlier, clock) as record,
            _metrics_writer(config, workdir, timer.step) as writer,
            training_display("pretrain", timer.step, config.total_steps, SHOWN) as display,
        ):
            yield _Trainer(
                config,
                state,
                timer,
                metrics=_step_metrics(config, timer, mesh, pending_sums),
                checkpoints=checkpoints,
                validation=_Validation(config, dataset, mesh, cache, preemption),
                writer=writer,
                display=display,
                monitor=_alert_monitor(config, dataset, workdir),
                guard=guard,
                record=record,
                clock=clock,
            )


def _start_state(
    config: Config, mesh: Mesh, restored: tuple[TrainState, RunCounters] | None, init_params: Params | None
) -> tuple[TrainState, StepTimer, dict[str, float]]:
    """Returns train state, step timer and pending metric sums, from the restored checkpoint or for step 0."""
    if restored:
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


@contextlib.contextmanager
def _train_batches(config: Config, dataset: Dataset, mesh: Mesh, cache: DiskCache | None) -> Iterator[Loader]:
    data, where = config.data, sharding.batch_sharding(mesh)
    loader = Loader(dataset, "train", config.batch_size, data.seed, where, weights=data.weights, cache=cache)
    try:
        yield loader
    finally:
        with distributed.get_watchdog().waiting("batch"):  # it waits for a batch that is being read
            loader.close()


def _disk_cache(config: Config) -> DiskCache | None:
    data = config.data
    return DiskCache(data.cache_directory, int(data.cache_gigabytes * 1e9)) if data.cache_directory else None


def _metrics_writer(config: Config, workdir: str, step: int) -> metrics_writer.MetricsWriter:
    return metrics_writer.MetricsWriter(workdir, resumed_step=step, trackers=config.trackers, settings=to_dict(config))


def _run_record(
    config: Config, dataset: Dataset, workdir: str, step: int, earlier: Config | None, clock: RunClock
) -> RunRecord:
    return RunRecord(
        workdir,
        step,
        to_dict(config),
        earlier_settings=to_dict(earlier) if earlier else None,
        dataset=dataset.fingerprint(),
        clock=clock,
    )


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
    """Returns the alert monitor; in the main process it continues from the metrics of earlier processes."""
    if not distributed.is_main():
        return AlertMonitor(config, dataset.manifest)
    entries, starts = metrics_writer.read_metrics(workdir), [start["step"] for start in read_starts(workdir)]
    return AlertMonitor(config, dataset.manifest, entries, starts)


def _end_line(workdir: str, first_step: int, step: int, preempted: bool) -> str:
    if step > first_step:
        return f"saved step {step:,} in {workdir}"
    if preempted:
        return f"{workdir}: preempted before the first step; nothing to save"
    return f"{workdir}: step {step:,} is already trained; nothing to do"


def _devices() -> str:
    """Returns "8 cpu device(s)", with " of N processes" if there are several."""
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{jax.device_count()} {jax.devices()[0].device_kind} device(s){processes}"
