"""A finished run's model, read back: for export, prediction, and as the beginning of another run."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import postprocess_config as decoding
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.task import model_spec
from electramed_jax.finetune.training import loop, workdir
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.training import sharding
from electramed_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class Trained:
    """The best parameters of one seed, on the host, and what they mean."""

    described: model_spec.ModelSpec
    tokens: list[str]
    params: Params
    seed: int
    decoding: PostprocessConfig
    results: dict[str, Any]  # what results.json holds
    scores: dict[str, Any]  # what the seed's scores.json holds

    @property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_tokens(self.tokens, self.described.lower_case, self.described.whole_tokens)


def read_results(folder: str) -> dict[str, Any]:
    """results.json of a workdir of `electramed finetune`.

    Raises:
      UserError: no such workdir, or no seed is done.
    """
    if not workdir.is_finetuned(folder):
        raise UserError(f"{folder}: no {workdir.TASK_FILE}; not a workdir of electramed finetune")
    path = files.join(folder, workdir.RESULTS_FILE)
    if not files.exists(path):
        raise UserError(f"{folder}: no seed is done; run the same electramed finetune again until one is")
    return files.read_json(path)


def load_finetuned(folder: str, seed: int | None = None) -> Trained:
    """The model of a seed of a workdir of `electramed finetune`; None: of the seed that is best on dev.

    Raises:
      UserError: no such workdir, no such seed, or none that is done.
    """
    results = read_results(folder)
    runs = {scores["seed"]: scores for scores in results["runs"]}
    if seed is None:
        seed = max(runs, key=lambda number: runs[number]["dev"][results["primary"]])
    if seed not in runs:
        raise UserError(f"{folder}: seed {seed} is not done; done are {', '.join(map(str, runs))}")
    described = workdir.read_model_spec(folder)
    recipe = TrainSpec(described.model, described.head, described.special, FinetuneOptimizerConfig(), 1)
    mesh = sharding.make_mesh(MeshConfig())  # whatever devices are here, not those of the training
    best_folder = files.join(workdir.seed_folder(folder, seed), loop.BEST)
    params = loop.best_params(recipe, best_folder, mesh, runs[seed]["best_step"])
    tokens = vocab.read_vocab(files.join(folder, vocab.VOCAB_FILE))
    settings = config_io.rename_settings(files.read_json(files.join(folder, workdir.CONFIG_FILE)))
    account = files.read_json(files.join(folder, workdir.DATA_FILE))
    read_off = decoding.of_run(described.kind, described.max_length, settings, account)
    return Trained(described, tokens, sharding.to_host(params), seed, read_off, results, runs[seed])
