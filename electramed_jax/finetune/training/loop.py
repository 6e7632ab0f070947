"""The story of one seed: start, step, measure on dev, keep the best, stop; then the test split, once, with the best.

What holds, and where it is tested:
  * a batch is a function of (seed, step), so that an interrupted and resumed run is bit-equal to an uninterrupted one;
  * the test split is looked at once, by the parameters that dev chose;
  * a seed that is done is not done again.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, training_display
from electramed_jax.common.progress_panel import TrainingDisplay
from electramed_jax.common.rounding import round_up
from electramed_jax.common.step_timer import StepTimer, format_duration
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.task import init_encoder
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, TEST, TRAIN, Task
from electramed_jax.finetune.training import batches, predict_logits, workdir
from electramed_jax.finetune.training.step import TrainSpec, compute_metrics, jit_predict_step, jit_train_step
from electramed_jax.model import flops
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.checkpoint import CheckpointManager, load_state
from electramed_jax.training.starts import CHECKPOINTS, record_start
from electramed_jax.training.state import TrainState
from electramed_jax.training.step_metrics import NonFiniteError, StepMetrics, pop_pending_sums

BEST = "best"
ALIKE = ("precision", "recall", "accuracy", "spearman", "exact_match", "strict_accuracy", "lenient_accuracy")
MAX_TO_KEEP = 2  # checkpoints: the one before the newest, too, in case that cannot be read


@dataclasses.dataclass(frozen=True)
class SeedRunner:
    """What all seeds of a run share: its plan in numbers and its compiled steps."""

    config: FinetuneConfig
    task: Task
    spec: TrainSpec
    mesh: Mesh
    rows: int  # of a batch
    train_step: Callable
    predict_step: Callable

    def plan(self, seed: int) -> EpochSampler:
        return EpochSampler(len(self.task.examples(TRAIN)), self.config.batch_size, seed)

    @property
    def eval_steps(self) -> list[int]:
        """Steps after which dev is measured; the last step is one."""
        total = self.spec.total_steps
        if every := self.config.eval_every:
            return sorted({*range(every, total, every), total})
        per_epoch = len(self.task.examples(TRAIN)) / self.config.batch_size
        ends = {math.ceil(epoch * per_epoch) for epoch in range(1, math.ceil(self.config.epochs) + 1)}
        return sorted({step for step in ends if step < total} | {total})


def total_steps(config: FinetuneConfig, examples: int) -> int:
    """Steps in which every training example is seen `epochs` times."""
    return max(1, math.ceil(config.epochs * examples / config.batch_size))


def make_seed_runner(config: FinetuneConfig, task: Task, spec: TrainSpec, mesh: Mesh) -> SeedRunner:
    """Counts the rows that the fullest batch of any seed needs, and makes the steps."""
    made = SeedRunner(config, task, spec, mesh, 0, jit_train_step(spec, mesh), jit_predict_step(spec, mesh))
    seeds = range(config.seed, config.seed + config.seeds)
    needed = max(
        batches.rows_needed(task.examples(TRAIN), made.plan(seed), spec.total_steps, task.max_length) for seed in seeds
    )
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    return dataclasses.replace(made, rows=round_up(needed, shards))


def predict(
    runner: SeedRunner, params: Any, split: str, stop: Callable[[], bool] = lambda: False
) -> list[np.ndarray] | None:
    """The logits of every example of a split, in order; None where it was told to `stop`."""
    return predict_logits.outputs(
        runner.predict_step,
        params,
        runner.task.examples(split),
        runner.spec,
        runner.mesh,
        rows=runner.rows,
        row_length=runner.task.max_length,
        stop=stop,
    )


def run_seed(
    runner: SeedRunner, start_from: InitEncoder, folder: str, seed: int, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Trains one seed to its end, from its newest checkpoint where there is one, and returns its scores.

    Args:
      folder: the run's workdir.
      stop: whether to save and end, asked after every step.

    Returns:
      What scores.json holds; None where it was told to stop.

    Raises:
      UserError: a number was not finite, or a checkpoint cannot be written or read.
    """
    own = workdir.seed_folder(folder, seed)
    scores_path = files.join(own, workdir.SCORES_FILE)
    if distributed.broadcast_from_main(int(files.exists(scores_path))):
        return files.read_json(scores_path)
    best_folder = files.join(own, BEST)
    with CheckpointManager(own, runner.spec.abstract_state, max_to_keep=MAX_TO_KEEP) as checkpoints:
        run = _restore_or_create(runner, start_from, checkpoints, seed)
        _remove_later_checkpoints(best_folder, run.timer.step)
        record_start(own, run.timer.step)
        config, abstract_params = runner.config, functools.partial(_abstract_params, runner.spec)
        with (
            CheckpointManager(best_folder, abstract_params, max_to_keep=MAX_TO_KEEP) as best_checkpoints,
            metrics_writer.MetricsWriter(
                own, resumed_step=run.timer.step, trackers=config.trackers, settings=dataclasses.asdict(config)
            ) as writer,
            training_display(
                f"finetune, seed {seed}", run.timer.step, runner.spec.total_steps, shown(runner.task.primary)
            ) as display,
        ):
            seed_run = _SeedRun(runner, seed, run, checkpoints, best_checkpoints, writer, display, stop)
            try:
                done = seed_run.train()
            except NonFiniteError as error:
                seed_run.record(error.step, error.metrics)
                raise
    if not done:
        return None
    scores = _finish(runner, run, best_folder, seed, stop)
    if scores is None:
        return None
    if distributed.is_main():
        for split, text in scores.pop("predictions").items():
            files.write_text(files.join(own, f"predictions-{split}.txt"), text)
        files.write_json(scores_path, scores)
        files.remove(files.join(own, CHECKPOINTS))  # its best parameters stay
    distributed.barrier("the seed is done")
    return scores


@dataclasses.dataclass
class _SeedState:
    """What training changes in a seed's run.

    Attributes:
      history: dev scores, each with its "step" and "epoch".
    """

    state: TrainState
    timer: StepTimer
    metrics: StepMetrics
    history: list[dict[str, float]]

    def best(self, primary: str) -> dict[str, float]:
        """Returns the dev scores with the highest primary score; of equal ones the earliest."""
        return max(self.history, key=lambda scores: scores[primary])

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint holds beside the train state."""
        return self.metrics.state_dict() | {"history": self.history}


def _restore_or_create(
    runner: SeedRunner, start_from: InitEncoder, checkpoints: CheckpointManager, seed: int
) -> _SeedState:
    """Returns the state of the newest checkpoint, or that of step 0."""
    pending_sums: dict[str, float] = {}
    history: list[dict[str, float]] = []
    if restored := checkpoints.restore(runner.mesh):
        state, counters = restored
        history, pending_sums = counters.pop("history"), pop_pending_sums(counters)
        log_main(f"seed {seed}: resuming from step {counters['step']:,}")
        timer = StepTimer(**counters)
    else:
        root = jax.random.key(seed)
        state = init_encoder.into(
            state_lib.init_sharded(lambda: runner.spec.init(root), runner.mesh), start_from.params
        )
        timer = StepTimer()
    task, model = runner.task, runner.spec.model
    metrics = StepMetrics(
        timer,
        runner.spec.total_steps,
        compute_metrics,
        step_flops=flops.finetune_step_flops(model, runner.spec.head.size, runner.rows, task.max_length),
        num_devices=runner.mesh.size,
        pending_sums=pending_sums,
        label=f"seed {seed}: ",
        advice="lower config.optimizer.learning_rate, then start with a new --workdir",
    )
    return _SeedState(state, timer, metrics, history)


@dataclasses.dataclass
class _SeedRun:
    """A seed's run between its first and its last step: its state, and what is done beside the steps."""

    runner: SeedRunner
    seed: int
    run: _SeedState
    checkpoints: CheckpointManager
    best_checkpoints: CheckpointManager
    writer: metrics_writer.MetricsWriter
    display: TrainingDisplay
    stop: Callable[[], bool]

    def record(self, step: int, metrics: dict[str, float]) -> None:
        """Writes and shows an entry of training metrics."""
        self.writer.write(step, "train", metrics)
        speed = f"  {metrics['step_seconds']:.3f} s/step" if "step_seconds" in metrics else ""
        eta = f"  ETA {format_duration(metrics['eta_seconds'])}" if "eta_seconds" in metrics else ""
        done = f"seed {self.seed}, step {step:,}/{self.runner.spec.total_steps:,}"
        self.display.log_metrics("train", step, metrics, f"{done}  loss {metrics['loss']:.4f}{speed}{eta}")

    def measure_dev(self, step: int) -> bool:
        """Scores dev and keeps the parameters if they are the best so far; returns False if `stop` interrupted it."""
        with self.display.stage("measuring dev"):
            outputs = predict(self.runner, self.run.state.params, DEV, self.stop)
        if outputs is None:
            return False
        primary = self.runner.task.primary
        scores, epoch = self.runner.task.score(DEV, outputs), self.runner.plan(self.seed).epoch(step)
        self.writer.write(step, "dev", scores)
        self.run.history.append({"step": step, "epoch": epoch} | scores)
        is_best = self.run.best(primary)["step"] == step
        so_far = "  (the best so far)" if is_best else ""
        self.display.log_metrics(
            DEV, step, scores, f"seed {self.seed}, epoch {epoch:.2f}: dev {line(scores, primary)}{so_far}"
        )
        if is_best:
            self.best_checkpoints.save(step, without_optimizer(self.run.state), {"step": step}, last=True)
        return True

    def save(self, step: int, *, last: bool) -> None:
        """Starts a checkpoint of `step`; the last one of a process is waited for."""
        counters = self.run.state_dict()
        self.writer.flush()
        with self.display.stage("saving"), self.run.timer.paused():
            self.checkpoints.save(step, self.run.state, counters, last=last)

    def train(self) -> bool:
        """Trains to the last step; returns False if `stop` ended it before, after a save."""
        config, task, spec = self.runner.config, self.runner.task, self.runner.spec
        run, total_steps, eval_steps = self.run, spec.total_steps, set(self.runner.eval_steps)
        examples, sampler = task.examples(TRAIN), self.runner.plan(self.seed)
        batch_sharding, root = sharding.batch_sharding(self.runner.mesh), jax.random.key(self.seed)
        first_step = run.timer.step
        stopping = self.stop()
        if first_step in eval_steps and first_step not in [scores["step"] for scores in run.history]:
            stopping = not self.measure_dev(first_step)  # stopped before it was measured
        while run.timer.step < total_steps and not stopping:
            step = run.timer.step + 1
            rows = sampler.rows(step - 1).tolist()
            batch = batches.collate(examples, rows, spec.head, self.runner.rows, task.max_length, spec.special.pad)
            run.state, sums = self.runner.train_step(run.state, batches.placed_on(batch, batch_sharding), root)
            run.metrics.add(step, sums)
            self.display.set_step(step)
            if step % config.log_every == 0 or step == total_steps:
                self.record(step, run.metrics.flush())
            with run.timer.paused():
                measured = step in eval_steps and self.measure_dev(step)
            stopping = self.stop()
            if measured if not config.save_every else step % config.save_every == 0 or step == total_steps:
                self.save(step, last=False)
        if stopping and run.timer.step > first_step:
            self.save(run.timer.step, last=True)
            log_main(f"seed {self.seed}: saved step {run.timer.step:,}")
        return not stopping


def _finish(
    runner: SeedRunner, run: _SeedState, best_folder: str, seed: int, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """The scores of the best parameters; None where it was told to stop."""
    task = runner.task
    best = run.best(task.primary)
    params = best_params(runner.spec, best_folder, runner.mesh, int(best["step"]))
    scores: dict[str, Any] = {
        "seed": seed,
        "best_step": int(best["step"]),
        "best_epoch": best["epoch"],
        "steps": run.timer.step,
        "train_seconds": run.timer.state_dict()["train_seconds"],
        "tokens": run.timer.tokens,
        "predictions": {},
    }
    for split in task.splits:
        if split == TRAIN:
            continue
        outputs = predict(runner, params, split, stop)
        if outputs is None:
            return None
        scores[split] = task.score(split, outputs)
        scores["predictions"][split] = task.predictions(split, outputs)
    scores["history"] = run.history
    shown = TEST if TEST in task.splits else DEV
    log_main(f"seed {seed}: best after epoch {best['epoch']:.2f}; {shown} {line(scores[shown], task.primary)}")
    return scores


def without_optimizer(state: TrainState) -> TrainState:
    """What is kept of the best step: no moments."""
    return dataclasses.replace(state, opt_state=())


def _abstract_params(spec: TrainSpec, mesh: Mesh) -> TrainState:
    return without_optimizer(spec.abstract_state(mesh))


def best_params(spec: TrainSpec, best_folder: str, mesh: Mesh, step: int) -> state_lib.Params:
    """The parameters that `best_folder` holds of a step."""
    return load_state(best_folder, functools.partial(_abstract_params, spec), mesh, step).params


def _remove_later_checkpoints(best_folder: str, step: int) -> None:
    """Removes best parameters of steps that are to be done again."""
    path = files.join(best_folder, CHECKPOINTS)
    if distributed.is_main() and files.exists(path):
        for name in files.list_dir(path):
            if name.isdecimal() and int(name) > step:
                files.remove(files.join(path, name))
    distributed.barrier("no later best is left")


def line(scores: dict[str, float], primary: str) -> str:
    """ "f1 87.12  precision 86.00  recall 88.27": the primary score and its like."""
    return "  ".join(f"{name} {scores[name]:.2f}" for name in dict.fromkeys((primary, *ALIKE)) if name in scores)


def shown(primary: str) -> list[str]:
    """Names of the figures that a terminal shows."""
    return list(dict.fromkeys((primary, *ALIKE, "loss", "gradient_norm", "learning_rate")))
