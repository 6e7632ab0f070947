"""Fine-tuning in one stage, or in two for question answering: first SQuAD, then BioASQ.

The first stage is a run with one seed in workdir/first. Every seed of the second stage starts from its best parameters,
head included. The standard deviation over seeds is therefore that of the second stage only.
"""

from __future__ import annotations

import dataclasses

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.finetune import FinetuneConfig, QaConfig
from electramed_jax.finetune import load_model
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.qa.task import QaTask
from electramed_jax.finetune.run import Outcome, run_finetuning
from electramed_jax.finetune.task import result_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import TRAIN
from electramed_jax.finetune.training import workdir
from electramed_jax.training import starts
from electramed_jax.training.starts import DeviceHours, read_starts

FIRST_STAGE = "first"  # folder of the first stage in the workdir


def run_stages(config: FinetuneConfig, encoder: InitEncoder, run_folder: str) -> Outcome:
    """Runs all stages; see `run.run_finetuning`. If the first stage is preempted, returns its outcome."""
    config = workdir.keep_earlier_words(config, run_folder)
    task, encoder, spec = make_task(config, encoder)  # before the first stage, so that mistakes are reported early
    if config.qa.pretrain_stage.train:
        assert isinstance(task, QaTask), "checked with the config"
        first_config, first_folder = first_stage_config(config), files.join(run_folder, FIRST_STAGE)
        first_task, encoder, first_spec = make_task(first_config, encoder)
        assert isinstance(first_task, QaTask)
        if leaked := first_task.train_questions_in_eval_of(task):
            raise UserError(
                f"{first_config.task.train}: question {leaked[0]} and {len(leaked) - 1} more of the first stage are in "
                "dev or test of the second; remove them"
            )
        workdir.init_workdir(run_folder, config, spec, encoder, task)
        log_main(f"first stage, in {first_folder}:")
        outcome = run_finetuning(first_config, first_task, encoder, first_spec, first_folder)
        if outcome.preempted:
            return outcome
        log_main(f"second stage, in {run_folder}:")
        trained = load_model.load_finetuned(first_folder)
        source = f"{encoder.source}, then {first_config.task.train} for {trained.scores['best_epoch']:.2f} epochs"
        encoder = dataclasses.replace(encoder, source=source, params=trained.params)
    return run_finetuning(config, task, encoder, spec, run_folder)


def first_stage_config(config: FinetuneConfig) -> FinetuneConfig:
    """Returns the settings of the first stage."""
    stage = config.qa.pretrain_stage
    optimizer = config.optimizer
    if stage.learning_rate:
        optimizer = dataclasses.replace(optimizer, learning_rate=stage.learning_rate)
    return dataclasses.replace(
        config,
        task=dataclasses.replace(
            config.task,
            data="",
            train=stage.train,
            dev=stage.dev,
            test="",
            dev_fraction=stage.dev_fraction,
            primary="",  # the first stage has other scores
        ),
        qa=dataclasses.replace(config.qa, measures="squad", gold="", pretrain_stage=QaConfig().pretrain_stage),
        optimizer=optimizer,
        epochs=stage.epochs,
        seeds=1,
    )


def device_hours(run_folder: str) -> DeviceHours:
    """Returns the device hours of all finished seeds, the first stage included (see `starts.device_hours`)."""
    hours: DeviceHours = {}
    for stage_folder in (run_folder, files.join(run_folder, FIRST_STAGE)):
        path = files.join(stage_folder, workdir.RESULTS_FILE)
        for seed in result_files.read_results(path)["seeds"] if files.exists(path) else ():
            folder = workdir.seed_folder(stage_folder, seed)
            entries = [entry for entry in metrics_writer.read_metrics(folder) if entry["split"] == TRAIN]
            for key, used in starts.device_hours(entries, read_starts(folder)).items():
                hours[key] = hours.get(key, 0.0) + used
    return hours
