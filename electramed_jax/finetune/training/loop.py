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
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from electramed_jax.common import progress_panel, step_timer
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main, training_display
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.dataset.sampler import EpochSampler
from electramed_jax.finetune.task import init_encoder
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, TEST, TRAIN, Task
from electramed_jax.finetune.training import batches, predict_logits, workdir
from electramed_jax.finetune.training.step import TrainSpec, jit_predict_step, jit_train_step
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training import step as step_lib
from electramed_jax.training.checkpoint import CheckpointManager, load_state
from electramed_jax.training.starts import CHECKPOINTS, record_start
from electramed_jax.training.state import TrainState

BEST = "best"
ALIKE = ("precision", "recall", "accuracy", "spearman", "exact_match", "strict_accuracy", "lenient_accuracy")
KEEP = 2  # checkpoints: the one before the newest, too, in case that cannot be read


@dataclasses.dataclass(frozen=True)
class SeedRunner:
    """What all seeds of a run share: its plan in numbers and its compiled steps."""

    config: FinetuneConfig
    task: Task
    recipe: TrainSpec
    mesh: Mesh
    rows: int  # of a batch
    train_step: Callable
    predict_step: Callable

    def plan(self, seed: int) -> EpochSampler:
        return EpochSampler(len(self.task.examples(TRAIN)), self.config.batch_size, seed)

    @property
    def eval_steps(self) -> list[int]:
        """Steps after which dev is measured; the last step is one."""
        total = self.recipe.total_steps
        if every := self.config.eval_every:
            return sorted({*range(every, total, every), total})
        per_epoch = len(self.task.examples(TRAIN)) / self.config.batch_size
        ends = {math.ceil(epoch * per_epoch) for epoch in range(1, math.ceil(self.config.epochs) + 1)}
        return sorted({step for step in ends if step < total} | {total})


def total_steps(config: FinetuneConfig, examples: int) -> int:
    """Steps in which every training example is seen `epochs` times."""
    return max(1, math.ceil(config.epochs * examples / config.batch_size))


def make_seed_runner(config: FinetuneConfig, task: Task, recipe: TrainSpec, mesh: Mesh) -> SeedRunner:
    """Counts the rows that the fullest batch of any seed needs, and makes the steps."""
    made = SeedRunner(config, task, recipe, mesh, 0, jit_train_step(recipe, mesh), jit_predict_step(recipe, mesh))
    seeds = range(config.seed, config.seed + config.seeds)
    needed = max(
        batches.rows_needed(task.examples(TRAIN), made.plan(seed), recipe.total_steps, task.max_length)
        for seed in seeds
    )
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    return dataclasses.replace(made, rows=-(-needed // shards) * shards)


def predict(
    program: SeedRunner, params: Any, split: str, stop: Callable[[], bool] = lambda: False
) -> list[np.ndarray] | None:
    """The logits of every example of a split, in order; None where it was told to `stop`."""
    return predict_logits.outputs(
        program.predict_step,
        params,
        program.task.examples(split),
        program.recipe,
        program.mesh,
        rows=program.rows,
        row_length=program.task.max_length,
        stop=stop,
    )


def run_seed(
    program: SeedRunner, start_from: InitEncoder, folder: str, seed: int, stop: Callable[[], bool]
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
    with CheckpointManager(own, program.recipe.abstract_state, keep=KEEP) as saved:
        run = _begin(program, start_from, saved, seed)
        _forget_later_ones(best_folder, run.clock.step)
        record_start(own, run.clock.step)
        with (
            CheckpointManager(
                best_folder, functools.partial(_abstract_params, program.recipe), keep=KEEP
            ) as kept,
            metrics_writer.MetricsWriter(
                own,
                resumed_step=run.clock.step,
                trackers=program.config.trackers,
                settings=dataclasses.asdict(program.config),
            ) as log,
            training_display(
                f"finetune, seed {seed}",
                run.clock.step,
                program.recipe.total_steps,
                shown(program.task.primary),
            ) as live,
        ):
            done = _train(program, run, saved, kept, log, live, seed, stop)
    if not done:
        return None
    scores = _finish(program, run, best_folder, seed, stop)
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
class _Run:
    """A seed on its way."""

    state: TrainState
    clock: step_timer.StepTimer
    history: list[dict[str, float]]  # dev scores, each with its "step"
    untold: dict[str, float]  # sums of steps that no entry of the log tells of yet

    def best(self, primary: str) -> dict[str, float]:
        """The dev scores that are best; of equals, the earliest."""
        return max(self.history, key=lambda scores: scores[primary])

    def saved(self) -> dict[str, Any]:
        return self.clock.saved() | {"history": self.history, "untold": self.untold}


def _begin(program: SeedRunner, start_from: InitEncoder, saved: CheckpointManager, seed: int) -> _Run:
    if restored := saved.restore(program.mesh):
        state, kept = restored
        history, untold = kept.pop("history"), kept.pop("untold")
        log_main(f"seed {seed}: going on from step {kept['step']:,}")
        return _Run(state, step_timer.StepTimer(**kept), history, untold)
    root = jax.random.key(seed)
    state = state_lib.init_sharded(lambda: program.recipe.init(root), program.mesh)
    return _Run(init_encoder.into(state, start_from.params), step_timer.StepTimer(), [], {})


def _train(
    program: SeedRunner,
    run: _Run,
    saved: CheckpointManager,
    kept: CheckpointManager,
    log: metrics_writer.MetricsWriter,
    live: progress_panel.TrainingDisplay,
    seed: int,
    stop: Callable[[], bool],
) -> bool:
    """Whether the seed came to its end; else it was told to stop, and is saved."""
    config, task, recipe = program.config, program.task, program.recipe
    total, evals = recipe.total_steps, set(program.eval_steps)
    examples, plan = task.examples(TRAIN), program.plan(seed)
    rows, root = sharding.batch_sharding(program.mesh), jax.random.key(seed)
    began, started = time.monotonic(), run.clock.step
    pending: list[dict[str, jax.Array]] = []

    def collect() -> None:
        for sums in jax.device_get(pending):
            if not math.isfinite(sums["loss_sum"]) or not math.isfinite(sums["gradient_norm_sum"]):
                raise UserError(
                    f"seed {seed}: the loss or its gradient was not finite near step {run.clock.step}; stopped, the "
                    "last checkpoint is from before it; lower config.optimizer.learning_rate, then start "
                    "with a new --workdir"
                )
            run.untold = {name: run.untold.get(name, 0.0) + float(value) for name, value in sums.items()}
        pending.clear()

    def entry(step: int) -> None:
        collect()
        sums, run.untold = run.untold, {}
        found = {
            "loss": sums["loss_sum"] / max(1.0, sums["count"]),
            "gradient_norm": sums["gradient_norm_sum"] / sums["step_count"],
            "learning_rate": sums["learning_rate_sum"] / sums["step_count"],
        } | run.clock.tick(sums["token_count"], int(sums["step_count"]), total)
        log.write(step, "train", found)
        speed = f"  {found['step_seconds']:.3f} s/step" if "step_seconds" in found else ""
        eta = f"  ETA {step_timer.format_duration(found['eta_seconds'])}" if "eta_seconds" in found else ""
        live.entry("train", step, found, f"seed {seed}, step {step:,}/{total:,}  loss {found['loss']:.4f}{speed}{eta}")

    def measure(step: int) -> bool:
        """Measures dev and keeps the parameters if they are the best; False where it was told to stop."""
        with live.stage("measuring dev"):
            outputs = predict(program, run.state.params, DEV, stop)
        if outputs is None:
            return False
        scores = task.score(DEV, outputs)
        epoch = plan.epoch(step)
        log.write(step, "dev", scores)
        run.history.append({"step": step, "epoch": epoch} | scores)
        is_best = run.best(task.primary)["step"] == step
        so_far = "  (the best so far)" if is_best else ""
        live.entry(DEV, step, scores, f"seed {seed}, epoch {epoch:.2f}: dev {line(scores, task.primary)}{so_far}")
        if is_best:
            kept.save(step, without_optimizer(run.state), {"step": step}, last=True)
        return True

    def save(step: int, *, last: bool) -> None:
        collect()
        kept_of_run = run.saved()
        log.flush()
        with live.stage("saving"), run.clock.paused():
            saved.save(step, run.state, kept_of_run, last=last)

    stopping = stop()
    if started in evals and started not in [scores["step"] for scores in run.history]:  # stopped before it was measured
        stopping = not measure(started)
    while run.clock.step < total and not stopping:
        step = run.clock.step + 1
        batch = batches.collate(
            examples,
            plan.rows(step - 1).tolist(),
            recipe.head,
            program.rows,
            task.max_length,
            recipe.special.pad,
        )
        run.state, sums = program.train_step(run.state, batches.placed_on(batch, rows), root)
        pending.append(sums)
        if len(pending) > step_lib.MAX_STEPS_IN_FLIGHT:
            jax.block_until_ready(pending[-1 - step_lib.MAX_STEPS_IN_FLIGHT])
        run.clock.count(step)
        if step == started + 1:
            collect()
            log_main(f"seed {seed}: first step after {time.monotonic() - began:.1f} s")
            run.clock.start()
        live.at(step)
        if step % config.log_every == 0 or step == total:
            entry(step)
        with run.clock.paused():
            measured = step in evals and measure(step)
        stopping = stop()
        if measured if not config.save_every else step % config.save_every == 0 or step == total:
            save(step, last=False)
    if stopping and run.clock.step > started:
        save(run.clock.step, last=True)
        log_main(f"seed {seed}: saved step {run.clock.step:,}")
    return not stopping


def _finish(
    program: SeedRunner, run: _Run, best_folder: str, seed: int, stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """The scores of the best parameters; None where it was told to stop."""
    task = program.task
    best = run.best(task.primary)
    params = best_params(program.recipe, best_folder, program.mesh, int(best["step"]))
    scores: dict[str, Any] = {
        "seed": seed,
        "best_step": int(best["step"]),
        "best_epoch": best["epoch"],
        "steps": run.clock.step,
        "train_seconds": run.clock.saved()["train_seconds"],
        "tokens": run.clock.tokens,
        "predictions": {},
    }
    for split in task.splits:
        if split == TRAIN:
            continue
        outputs = predict(program, params, split, stop)
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


def _abstract_params(recipe: TrainSpec, mesh: Mesh) -> TrainState:
    return without_optimizer(recipe.abstract_state(mesh))


def best_params(recipe: TrainSpec, best_folder: str, mesh: Mesh, step: int) -> state_lib.Params:
    """The parameters that `best_folder` holds of a step."""
    return load_state(best_folder, functools.partial(_abstract_params, recipe), mesh, step).params


def _forget_later_ones(best_folder: str, step: int) -> None:
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
