"""One run, or two where questions of another kind come first: SQuAD's, then BioASQ's.

The first stage is a run of its own in workdir/first, of one seed; its best parameters, head and all, are what every
seed of the run proper starts from. The deviation over seeds is therefore that of the second stage alone.
"""

from __future__ import annotations

import dataclasses

from electramed_jax.common import files
from electramed_jax.finetune import loop, run, tasks, workdir
from electramed_jax.finetune.config import FinetuneConfig, QaConfig
from electramed_jax.finetune.run import Outcome
from electramed_jax.finetune.start import Start
from electramed_jax.finetune.step import Recipe
from electramed_jax.finetune.workdir import Described
from electramed_jax.training import sharding

FIRST = "first"


def run_all(config: FinetuneConfig, start: Start, folder: str) -> Outcome:
    """See `run.run`; where the first stage was told to stop, its outcome."""
    task, start, described = tasks.make(config, start)  # before the first stage: it may hold mistakes
    if config.qa.first.train:
        workdir.claim(folder, config, described, start, task)
        first = first_stage(config)
        first_task, start, first_described = tasks.make(first, start)
        outcome = run.run(first, first_task, start, first_described, files.join(folder, FIRST))
        if outcome.preempted:
            return outcome
        start = carried_on(first, start, first_described, folder)
    return run.run(config, task, start, described, folder)


def first_stage(config: FinetuneConfig) -> FinetuneConfig:
    """The settings of the first stage by themselves."""
    first = config.qa.first
    optimizer = config.optimizer
    if first.learning_rate:
        optimizer = dataclasses.replace(optimizer, learning_rate=first.learning_rate)
    return dataclasses.replace(
        config,
        task=dataclasses.replace(
            config.task, data="", train=first.train, dev=first.dev, test="", dev_fraction=first.dev_fraction
        ),
        qa=dataclasses.replace(config.qa, measures="squad", gold="", first=QaConfig().first),
        optimizer=optimizer,
        epochs=first.epochs,
        seeds=1,
    )


def carried_on(first: FinetuneConfig, start: Start, described: Described, folder: str) -> Start:
    """What the second stage starts from: the first one's best parameters."""
    own = workdir.seed_folder(files.join(folder, FIRST), first.seed)
    scores = files.read_json(files.join(own, workdir.SCORES_FILE))
    recipe = Recipe(described.model, described.head, described.special, first.optimizer, scores["steps"])
    mesh = sharding.make_mesh(first.mesh)
    params = loop.best_params(recipe, files.join(own, loop.BEST), mesh, scores["best_step"])
    source = f"{start.source}, then {first.task.train} for {scores['best_epoch']:.2f} epochs"
    return dataclasses.replace(start, source=source, params=sharding.to_host(params))
