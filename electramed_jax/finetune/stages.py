"""One run, or two where questions of another kind come first: SQuAD's, then BioASQ's.

The first stage is a run of its own in workdir/first, of one seed; its best parameters, head and all, are what every
seed of the run proper starts from. The deviation over seeds is therefore that of the second stage alone.
"""

from __future__ import annotations

import dataclasses

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.finetune import FinetuneConfig, QaConfig
from electramed_jax.finetune import load_model, make_task, run
from electramed_jax.finetune.run import Outcome
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import TRAIN
from electramed_jax.finetune.training import workdir
from electramed_jax.training import starts
from electramed_jax.training.starts import DeviceHours, read_starts

FIRST = "first"


def run_all(config: FinetuneConfig, start: InitEncoder, folder: str) -> Outcome:
    """See `run.run`; where the first stage was told to stop, its outcome."""
    task, start, described = make_task.make(config, start)  # before the first stage: it may hold mistakes
    if config.qa.pretrain_stage.train:
        first, first_folder = first_stage(config), files.join(folder, FIRST)
        first_task, start, first_described = make_task.make(first, start)
        if leaked := first_task.trains_on(task):
            raise UserError(
                f"{first.task.train}: question {leaked[0]} and {len(leaked) - 1} more of the first stage are asked in "
                "dev or test of the second; leave them out"
            )
        workdir.init_workdir(folder, config, described, start, task)
        log_main(f"first stage, in {first_folder}:")
        outcome = run.run(first, first_task, start, first_described, first_folder)
        if outcome.preempted:
            return outcome
        log_main(f"second stage, in {folder}:")
        learnt = load_model.load_finetuned(first_folder)
        source = f"{start.source}, then {first.task.train} for {learnt.scores['best_epoch']:.2f} epochs"
        start = dataclasses.replace(start, source=source, params=learnt.params)
    return run.run(config, task, start, described, folder)


def device_hours(folder: str) -> DeviceHours:
    """Of every seed that is done, the first stage's included (see `history.device_hours`)."""
    hours: DeviceHours = {}
    for stage in (folder, files.join(folder, FIRST)):
        path = files.join(stage, workdir.RESULTS_FILE)
        for seed in files.read_json(path)["seeds"] if files.exists(path) else ():
            own = workdir.seed_folder(stage, seed)
            entries = [entry for entry in metrics_writer.read_metrics(own) if entry["split"] == TRAIN]
            for key, used in starts.device_hours(entries, read_starts(own)).items():
                hours[key] = hours.get(key, 0.0) + used
    return hours


def first_stage(config: FinetuneConfig) -> FinetuneConfig:
    """The settings of the first stage by themselves."""
    first = config.qa.pretrain_stage
    optimizer = config.optimizer
    if first.learning_rate:
        optimizer = dataclasses.replace(optimizer, learning_rate=first.learning_rate)
    return dataclasses.replace(
        config,
        task=dataclasses.replace(
            config.task, data="", train=first.train, dev=first.dev, test="", dev_fraction=first.dev_fraction
        ),
        qa=dataclasses.replace(config.qa, measures="squad", gold="", pretrain_stage=QaConfig().pretrain_stage),
        optimizer=optimizer,
        epochs=first.epochs,
        seeds=1,
    )
