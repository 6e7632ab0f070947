"""Training of one seed: steps, evaluation on dev, the best checkpoint, and the final scores.

Guarantees, each with a test in tests/finetune/test_run.py:
  * A batch is a function of (seed, step). A run that is interrupted and resumed is bit-equal to an uninterrupted one.
  * The test split is scored once, with the parameters that were best on dev.
  * A finished seed is not trained again.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, training_display, warn_main
from electramed_jax.common.processes.watchdog import Watchdog
from electramed_jax.common.progress_panel import TrainingDisplay
from electramed_jax.common.step_timer import StepTimer, format_duration
from electramed_jax.common.storage import files
from electramed_jax.common.tracking.metrics_writer import MetricsWriter
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.data.tokenizer import vocab
from electramed_jax.finetune.task import result_files
from electramed_jax.finetune.task.init_encoder import InitEncoder, with_encoder_params
from electramed_jax.finetune.task.metrics import SECONDARY_METRICS, format_scores
from electramed_jax.finetune.task.task import DEV, TEST, TRAIN, Outputs, Task
from electramed_jax.finetune.training import batches, workdir
from electramed_jax.finetune.training.predict_logits import predict_logits
from electramed_jax.finetune.training.step import TrainSpec, compute_metrics, jit_predict_step, jit_train_step
from electramed_jax.model import flops
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.checkpoint import CheckpointManager, load_state
from electramed_jax.training.starts import CHECKPOINTS, VOCABULARY, RunRecord
from electramed_jax.training.state import Params, TrainState
from electramed_jax.training.step_metrics import NonFiniteError, StepMetrics, pop_pending_sums

BEST_FOLDER = "best"
MAX_TO_KEEP = 2  # the checkpoint before the newest is the fallback if the newest cannot be read
# Of seeds that are trained at the same time one uses orbax at a time: it numbers its operations for the whole process,
# and two saves at once wait for each other until they time out (0.12).
ORBAX_LOCK = threading.RLock()
NON_FINITE_ADVICE = "lower config.optimizer.learning_rate, then start with a new --workdir"

Stop = Callable[[], bool]  # returns True to save a checkpoint and end


@dataclasses.dataclass(frozen=True)
class SeedRunner:
    """Everything that the seeds of a run share: settings, task, mesh and compiled steps.

    Attributes:
      sizes: numbers of rows that a training batch may have, the largest first; see `batches.choose_sizes`.
      mean_rows: their mean over all steps.
    """

    config: FinetuneConfig
    task: Task
    spec: TrainSpec
    mesh: Mesh
    sizes: tuple[int, ...]
    mean_rows: float
    train_step: Callable
    predict_step: Callable

    def sampler(self, seed: int) -> EpochSampler:
        """Returns the order of the training examples of a seed."""
        return EpochSampler(len(self.task.examples(TRAIN)), self.config.batch_size, seed)

    @property
    def eval_steps(self) -> list[int]:
        """Steps after which dev is scored: every `eval_every` steps, or the end of each epoch; always the last step."""
        total = self.spec.total_steps
        if every := self.config.eval_every:
            return sorted({*range(every, total, every), total})
        per_epoch = len(self.task.examples(TRAIN)) / self.config.batch_size
        ends = {math.ceil(epoch * per_epoch) for epoch in range(1, math.ceil(self.config.epochs) + 1)}
        return sorted({step for step in ends if step < total} | {total})

    @property
    def scored_splits(self) -> list[str]:
        """Splits that are scored at the end."""
        left_alone = {TRAIN} if self.config.score_test else {TRAIN, TEST}
        return [split for split in self.task.splits if split not in left_alone]

    @functools.cached_property
    def watchdog(self) -> Watchdog:
        """That of the process; one without an effect if seeds train in parallel, because it watches one thread."""
        return distributed.get_watchdog() if self.config.parallel_seeds == 1 else Watchdog()

    def predict(self, params: Params, split: str, stop: Stop = lambda: False) -> Outputs | None:
        """Returns the logits of every example of a split, in order; None if `stop` returned True."""
        watchdog = self.watchdog

        def stop_or_note_progress() -> bool:
            watchdog.note_progress()
            return stop()

        with watchdog.waiting("evaluation"):
            return predict_logits(
                self.predict_step,
                params,
                self.task.examples(split),
                self.spec,
                self.mesh,
                rows=self.sizes[0],
                row_length=self.task.max_length,
                stop=stop_or_note_progress,
            )


def total_steps(config: FinetuneConfig, examples: int) -> int:
    """Returns the number of steps in which every training example is seen `epochs` times."""
    return max(1, math.ceil(config.epochs * examples / config.batch_size))


def make_seed_runner(config: FinetuneConfig, task: Task, spec: TrainSpec, mesh: Mesh) -> SeedRunner:
    """Builds the steps and chooses the numbers of rows of the batches of all seeds."""
    runner = SeedRunner(config, task, spec, mesh, (), 0.0, jit_train_step(spec, mesh), jit_predict_step(spec, mesh))
    examples, seeds = task.examples(TRAIN), range(config.seed, config.seed + config.seeds)
    needed = np.concatenate(
        [batches.needed_rows(examples, runner.sampler(seed), spec.total_steps, task.max_length) for seed in seeds]
    )
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * config.gradient_accumulation_steps
    sizes = batches.choose_sizes(needed, parts, mesh.devices.flat[0].platform)
    ordered = np.array(sizes[::-1])
    return dataclasses.replace(runner, sizes=sizes, mean_rows=float(ordered[np.searchsorted(ordered, needed)].mean()))


def run_seed(runner: SeedRunner, encoder: InitEncoder, run_folder: str, seed: int, stop: Stop) -> dict[str, Any] | None:
    """Trains one seed, from its newest checkpoint if there is one, and writes its scores and predictions.

    Args:
      encoder: initial parameters of every seed.
      run_folder: the run's workdir.
      stop: called after every step; True saves a checkpoint and ends the run.

    Returns:
      The content of scores.json; None if `stop` ended the run before.

    Raises:
      UserError: a loss or gradient norm was not finite, or a checkpoint cannot be written or read.
    """
    folder = workdir.seed_folder(run_folder, seed)
    scores_path = files.join(folder, workdir.SCORES_FILE)
    if distributed.broadcast_from_main(int(files.exists(scores_path))):
        return result_files.read_scores(scores_path, runner.scored_splits, runner.task.primary)
    best_folder = files.join(folder, BEST_FOLDER)
    abstract_params = functools.partial(_abstract_params, runner.spec)
    with CheckpointManager(folder, runner.spec.abstract_state, max_to_keep=MAX_TO_KEEP) as checkpoints:
        with ORBAX_LOCK:
            restored = checkpoints.restore(runner.mesh)
        state, counters = restored or (_init_state(runner, encoder, seed), {})
        if first_step := counters.get("step", 0):
            log_main(f"seed {seed}: resuming from step {first_step:,}")
        _remove_later_checkpoints(best_folder, first_step)
        settings = dataclasses.asdict(runner.config)
        with (
            RunRecord(folder, first_step, settings, dataset=_fingerprint(run_folder, runner.task)) as record,
            CheckpointManager(best_folder, abstract_params, max_to_keep=MAX_TO_KEEP) as best_checkpoints,
            MetricsWriter(
                folder, resumed_step=first_step, trackers=runner.config.trackers, settings=settings
            ) as writer,
            training_display(
                f"finetune, seed {seed}",
                first_step,
                runner.spec.total_steps,
                _displayed_metrics(runner.task.primary),
                live=runner.config.parallel_seeds == 1,
            ) as display,
        ):
            run = _SeedRun(runner, seed, state, counters, checkpoints, best_checkpoints, writer, display, record, stop)
            try:
                finished = run.train()
                record.end = "finished" if finished else "preempted"
            except NonFiniteError as error:
                run.log_train(error.step, error.metrics)
                raise
    if not finished or (final := run.final_scores(best_folder)) is None:
        return None
    scores, texts = final
    if distributed.is_main():
        for name, text in texts.items():
            files.write_text(files.join(folder, name), text)
        files.write_json(scores_path, scores)
        files.remove(files.join(folder, CHECKPOINTS))  # its best parameters stay
    distributed.barrier("the seed is done")
    return scores


class _SeedRun:
    """The training state of one seed, and the files and display that it writes to.

    Attributes:
      history: dev scores, each with its "step" and "epoch".
      best_outputs: logits on dev of the best parameters; None after a resume, until they are surpassed.
    """

    def __init__(
        self,
        runner: SeedRunner,
        seed: int,
        state: TrainState,
        counters: dict[str, Any],
        checkpoints: CheckpointManager,
        best_checkpoints: CheckpointManager,
        writer: MetricsWriter,
        display: TrainingDisplay,
        record: RunRecord,
        stop: Stop,
    ):
        """Starts from a train state and the counters of its checkpoint; {} at step 0."""
        self.runner, self.seed, self.state = runner, seed, state
        self.history: list[dict[str, float]] = counters.pop("history", [])
        self.best_outputs: Outputs | None = None
        pending_sums = pop_pending_sums(counters)
        self.timer = StepTimer(**counters)
        spec = runner.spec
        self.metrics = StepMetrics(
            self.timer,
            spec.total_steps,
            compute_metrics,
            step_flops=runner.mean_rows
            * flops.finetune_step_flops(spec.model, spec.head.size, 1, runner.task.max_length),
            num_devices=runner.mesh.size,
            pending_sums=pending_sums,
            label=f"seed {seed}: ",
            advice=NON_FINITE_ADVICE,
        )
        self.checkpoints, self.best_checkpoints = checkpoints, best_checkpoints
        self.writer, self.display, self.record, self.stop = writer, display, record, stop

    def train(self) -> bool:
        """Trains to the last step; returns False if `stop` ended it before, after a save."""
        config, task, spec = self.runner.config, self.runner.task, self.runner.spec
        examples, sampler = task.examples(TRAIN), self.runner.sampler(self.seed)
        batch_sharding, root_key = sharding.batch_sharding(self.runner.mesh), jax.random.key(self.seed)
        total_steps, eval_steps = spec.total_steps, set(self.runner.eval_steps)
        first_step = self.timer.step
        stopping = self.stop()
        if first_step in eval_steps and first_step not in [scores["step"] for scores in self.history]:
            stopping = not self.evaluate_dev(first_step)  # the last process ended before this evaluation
        while self.timer.step < total_steps and not stopping and not self.has_converged():
            step = self.timer.step + 1
            rows = sampler.rows(step - 1).tolist()
            batch = batches.collate(examples, rows, spec.head, self.runner.sizes, task.max_length, spec.special.pad)
            with self.runner.watchdog.waiting("step", step):
                device_batch = batches.to_devices(batch, batch_sharding)
                self.state, sums = self.runner.train_step(self.state, device_batch, root_key)
                self.metrics.add(step, sums)
            self.record.record_step(step)
            self.display.set_step(step)
            if step % config.log_every == 0 or step == total_steps:
                self.log_train(step, self.metrics.flush())
            with self.timer.paused():
                evaluated = step in eval_steps and self.evaluate_dev(step)
            stopping = self.stop()
            if evaluated if not config.save_every else step % config.save_every == 0 or step == total_steps:
                self.save(step, last=False)
        if stopping and self.timer.step > first_step:
            self.save(self.timer.step, last=True)
            log_main(f"seed {self.seed}: saved step {self.timer.step:,}")
        return not stopping

    def has_converged(self) -> bool:
        """Returns whether `early_stopping` evaluations in succession were not better than the best before them."""
        patience, best = self.runner.config.early_stopping, self.best()["step"] if self.history else 0
        return bool(patience) and sum(scores["step"] > best for scores in self.history) >= patience

    def log_train(self, step: int, metrics: dict[str, float]) -> None:
        """Writes training metrics to metrics.jsonl and the console."""
        self.writer.write(step, TRAIN, metrics)
        speed = f"  {metrics['step_seconds']:.3f} s/step" if "step_seconds" in metrics else ""
        eta = f"  ETA {format_duration(metrics['eta_seconds'])}" if "eta_seconds" in metrics else ""
        progress = f"seed {self.seed}, step {step:,}/{self.runner.spec.total_steps:,}"
        self.display.log_metrics(TRAIN, step, metrics, f"{progress}  loss {metrics['loss']:.4f}{speed}{eta}")

    def evaluate_dev(self, step: int) -> bool:
        """Scores dev and saves the parameters if they are the best so far; returns False if `stop` interrupted it."""
        with self.display.stage("scoring dev"):
            outputs = self.runner.predict(self.state.params, DEV, self.stop)
        if outputs is None:
            return False
        primary = self.runner.task.primary
        scores, epoch = self.runner.task.score(DEV, outputs), self.runner.sampler(self.seed).epoch(step)
        self.writer.write(step, DEV, scores)
        self.history.append({"step": step, "epoch": epoch} | scores)
        is_best = self.best()["step"] == step
        note = "  (best so far)" if is_best else ""
        self.display.log_metrics(
            DEV, step, scores, f"seed {self.seed}, epoch {epoch:.2f}: dev {format_scores(scores, primary)}{note}"
        )
        for warning in self.runner.task.prediction_warnings(DEV, outputs):
            warn_main(f"warning: seed {self.seed}, epoch {epoch:.2f}: {warning}")
        if is_best:
            self.best_outputs = outputs
            with ORBAX_LOCK:
                self.best_checkpoints.save(step, _without_optimizer(self.state), {"step": step}, wait=True)
        return True

    def best(self) -> dict[str, float]:
        """Returns the dev scores with the highest primary score; the earliest of equal ones."""
        return max(self.history, key=lambda scores: scores[self.runner.task.primary])

    def save(self, step: int, *, last: bool) -> None:
        """Starts an asynchronous checkpoint of `step`; waits for it if it is the last, or if other seeds save too."""
        counters = self.metrics.state_dict() | {"history": self.history}
        self.writer.flush()
        wait = last or self.runner.config.parallel_seeds > 1
        watched = self.runner.watchdog.waiting("save", step)
        with self.display.stage("saving"), self.timer.paused(), watched, ORBAX_LOCK:
            self.checkpoints.save(step, self.state, counters, wait=wait)

    def final_scores(self, best_folder: str) -> tuple[dict[str, Any], dict[str, str]] | None:
        """Scores dev and test with the best parameters.

        Returns:
          The content of scores.json, and the texts of predictions and records by name of the file; None if `stop`
          returned True.
        """
        task, best = self.runner.task, self.best()
        with ORBAX_LOCK:
            params = load_best_params(self.runner.spec, best_folder, self.runner.mesh, int(best["step"]))
        scores: dict[str, Any] = {
            "seed": self.seed,
            "best_step": int(best["step"]),
            "best_epoch": best["epoch"],
            "steps": self.timer.step,
            "train_seconds": self.timer.state_dict()["train_seconds"],
            "tokens": self.timer.tokens,
        }
        texts = {}
        for split in self.runner.scored_splits:
            known = self.best_outputs if split == DEV else None
            outputs = self.runner.predict(params, split, self.stop) if known is None else known
            if outputs is None:
                return None
            scores[split] = task.score(split, outputs)
            texts[workdir.predictions_file(split)] = task.predictions(split, outputs)
            records = task.records(split, outputs)
            texts[workdir.records_file(split)] = "".join(f"{json.dumps(r, ensure_ascii=False)}\n" for r in records)
            if split == DEV:
                scores["warnings"] = list(task.prediction_warnings(split, outputs))
        scores["history"] = self.history
        split = TEST if TEST in scores else DEV
        log_main(
            f"seed {self.seed}: best after epoch {best['epoch']:.2f}; {split} "
            f"{format_scores(scores[split], task.primary)}"
        )
        return scores, texts


def _init_state(runner: SeedRunner, encoder: InitEncoder, seed: int) -> TrainState:
    """Returns the state of step 0: the encoder's parameters, and a random head."""
    key = jax.random.key(seed)
    return with_encoder_params(state_lib.init_sharded(lambda: runner.spec.init(key), runner.mesh), encoder.params)


def load_best_params(spec: TrainSpec, best_folder: str, mesh: Mesh, step: int) -> Params:
    """Returns the parameters of a step that `best_folder` holds."""
    return load_state(best_folder, functools.partial(_abstract_params, spec), mesh, step).params


def _fingerprint(run_folder: str, task: Task) -> dict[str, str]:
    """Returns {"vocabulary" and each file of the corpus: SHA-256}."""
    corpus = {name: file["sha256"] for name, file in task.data_summary()["files"].items() if "sha256" in file}
    return {VOCABULARY: vocab.sha256(files.join(run_folder, vocab.VOCAB_FILE))} | corpus


def _without_optimizer(state: TrainState) -> TrainState:
    return dataclasses.replace(state, opt_state=())


def _abstract_params(spec: TrainSpec, mesh: Mesh) -> TrainState:
    return _without_optimizer(spec.abstract_state(mesh))


def _remove_later_checkpoints(best_folder: str, step: int) -> None:
    """Removes best parameters of steps after `step`: these steps are trained again."""
    path = files.join(best_folder, CHECKPOINTS)
    if distributed.is_main() and files.exists(path):
        for name in files.list_dir(path):
            if name.isdecimal() and int(name) > step:
                files.remove(files.join(path, name))
    distributed.barrier("no later best is left")


def _displayed_metrics(primary: str) -> list[str]:
    """Returns the names of the metrics that the terminal shows."""
    return list(dict.fromkeys((primary, *SECONDARY_METRICS, "loss", "gradient_norm", "learning_rate")))
