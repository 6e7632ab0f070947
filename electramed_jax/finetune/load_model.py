"""Loads the model of a finished fine-tuning run: for export, for prediction, and as the start of another run."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import postprocess_config
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.task import result_files
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import DEV
from electramed_jax.finetune.training import loop, workdir
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding
from electramed_jax.training.starts import VOCABULARY, read_starts
from electramed_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The best parameters of one seed, on the host, with everything needed to use and describe them.

    Attributes:
      tokens: the vocabulary, by id.
      postprocess: how predictions are computed from logits.
      results: the content of results.json.
      scores: the content of the seed's scores.json.
    """

    spec: ModelSpec
    tokens: list[str]
    params: Params
    seed: int
    postprocess: PostprocessConfig
    results: dict[str, Any]
    scores: dict[str, Any]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the run."""
        spec = self.spec
        return Tokenizer.from_tokens(self.tokens, spec.lower_case, spec.whole_tokens, keep_accents=spec.keep_accents)


def read_results(run_folder: str) -> dict[str, Any]:
    """Reads results.json of a workdir of `electramed finetune`.

    Raises:
      UserError: there is no such workdir, or no seed is finished.
    """
    if not workdir.is_finetuned(run_folder):
        raise UserError(f"{run_folder}: no {workdir.TASK_FILE}; not a workdir of electramed finetune")
    path = files.join(run_folder, workdir.RESULTS_FILE)
    if not files.exists(path):
        raise UserError(f"{run_folder}: no seed is finished; run the same electramed finetune command until one is")
    return result_files.read_results(path)


def load_finetuned(run_folder: str, seed: int | None = None) -> TrainedModel:
    """Loads the model of a seed; None: of the seed with the best dev score.

    Raises:
      UserError: there is no such workdir, or the seed is unknown or not finished.
    """
    results = read_results(run_folder)
    runs = {scores["seed"]: scores for scores in results["runs"]}
    if seed is None:
        seed = max(runs, key=lambda number: runs[number][DEV][results["primary"]])
    if seed not in runs:
        raise UserError(f"{run_folder}: seed {seed} is not finished; finished are {', '.join(map(str, runs))}")
    spec = workdir.read_model_spec(run_folder)
    train_spec = TrainSpec(spec.model, spec.head, spec.special, FinetuneOptimizerConfig(), 1)
    mesh = sharding.make_mesh(MeshConfig())  # the devices of this process, not those of the training
    best_folder = files.join(workdir.seed_folder(run_folder, seed), loop.BEST_FOLDER)
    params = loop.load_best_params(train_spec, best_folder, mesh, runs[seed]["best_step"])
    tokens = _read_vocab(run_folder, seed, spec)
    settings = workdir.read_config(run_folder)
    data = result_files.read_data_summary(files.join(run_folder, workdir.DATA_FILE))
    params = sharding.to_host(params)
    decoder = settings["ner"]["decoder"]
    transitions = params["head"]["crf"]["transitions"].tolist() if spec.head.crf else ()
    postprocess = postprocess_config.from_run(
        spec.kind, spec.max_length, settings, data, spec.words, decoder, transitions
    )
    return TrainedModel(spec, tokens, params, seed, postprocess, results, runs[seed])


def _read_vocab(run_folder: str, seed: int, spec: ModelSpec) -> list[str]:
    """Reads vocab.txt; raises a UserError unless it is the one that the seed was trained with."""
    path = files.join(run_folder, vocab.VOCAB_FILE)
    tokens = vocab.read_vocab(path)
    starts = read_starts(workdir.seed_folder(run_folder, seed))
    recorded = {sha256 for start in starts if (sha256 := (start.get("dataset") or {}).get(VOCABULARY))}
    if (recorded and vocab.sha256(path) not in recorded) or len(tokens) != spec.model.vocab_size:
        raise UserError(
            f"{path}: not the vocabulary that the model was trained with ({len(tokens):,} tokens, wanted "
            f"{spec.model.vocab_size:,}, or another SHA-256 than in history.jsonl of the seed); copy the vocabulary of "
            "the encoder over it"
        )
    return tokens
