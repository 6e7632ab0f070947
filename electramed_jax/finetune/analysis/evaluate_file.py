"""Scores of a finished model on another file."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import load_model
from electramed_jax.finetune.make_task import make_task
from electramed_jax.finetune.predictor import LoadedModel, Predictor
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import TEST
from electramed_jax.finetune.training import workdir


@dataclasses.dataclass(frozen=True)
class FileScores:
    """Scores of a model on a file.

    Attributes:
      seed: of the model.
      primary: name of the score that chose the checkpoint.
      predictions: in the format of the corpus; see `Task.predictions`.
      records: see `Task.records`.
      warnings: of the predictions and of the file.
    """

    seed: int
    primary: str
    scores: dict[str, float]
    predictions: str
    records: list[dict[str, Any]]
    warnings: list[str]


def evaluate_file(
    run_folder: str, path: str, seed: int | None = None, gold: str = "", batch_rows: int = 32
) -> FileScores:
    """Scores the best parameters of a seed on a file of the same form as the test file of the run.

    The training file of the run must still be where it was: labels are read from it.

    Args:
      path: the file; several of question answering separated by commas.
      seed: None: the best on dev.
      gold: BioASQ's golden files, if `path` has no answers.

    Raises:
      UserError: there is no such run, a file cannot be read, or the training file has other labels than the model.
    """
    trained = load_model.load_finetuned(run_folder, seed)
    config = config_io.from_saved(FinetuneConfig, workdir.read_config(run_folder), f"{run_folder}: config")
    config = dataclasses.replace(
        config,
        task=dataclasses.replace(config.task, test=path),
        qa=dataclasses.replace(config.qa, gold=gold),
    )
    spec = trained.spec
    encoder = InitEncoder(spec.source, spec.model, trained.tokens, spec.lower_case, {})
    task, extended, _ = make_task(config, encoder)
    if task.head != spec.head or list(extended.tokens) != trained.tokens:
        raise UserError(
            f"{run_folder}: its training file now has other labels or placeholders than the model, or {path} has a "
            "placeholder that the model does not know; restore the files of the run"
        )
    model = LoadedModel(run_folder, spec.model, spec.head, task.tokenizer, trained.params, trained.postprocess)
    outputs = Predictor(model, batch_rows).logits(task.examples(TEST).input_ids)
    of_file = [warning for warning in task.data_warnings() if TEST in warning.split()]
    return FileScores(
        trained.seed,
        task.primary,
        task.score(TEST, outputs),
        task.predictions(TEST, outputs),
        task.records(TEST, outputs),
        [*of_file, *task.prediction_warnings(TEST, outputs)],
    )
