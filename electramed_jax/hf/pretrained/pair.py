"""Loads a pre-trained generator and discriminator, or one of them, from a workdir or a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, DataConfig, MeshConfig, ModelConfig, ObjectiveConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf import convert
from electramed_jax.hf.format import model_dir
from electramed_jax.hf.format.mapping import DISCRIMINATOR, ELECTRIC, GENERATOR
from electramed_jax.model.automatic import PLAIN_MODEL
from electramed_jax.pretrain import state, workdir
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding
from electramed_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class PretrainedPair:
    """A pre-trained model on the host.

    Attributes:
      source: its folder, for messages and outputs.
      networks: "discriminator", "generator" or both.
      config: sizes, numerics and row length.
      params: parameter tree, float32 numpy.
    """

    source: str
    networks: tuple[str, ...]
    config: Config
    tokenizer: Tokenizer
    params: Params

    @property
    def is_electric(self) -> bool:
        """Whether the discriminator's logits are energies."""
        return self.config.objective.kind == ELECTRIC


def load_pair(folder: str) -> PretrainedPair:
    """Loads a workdir of `electramed pretrain` (newest checkpoint), or a Hugging Face folder of a network or of both.

    Raises:
      UserError: the folder is neither, or is damaged.
    """
    if files.exists(files.join(folder, workdir.DATASET_FILE)):
        return _load_workdir(folder)
    imported = convert.import_folder(folder)
    if imported.vocabulary is None:
        raise UserError(f"{folder}: no vocabulary in it; copy the vocab.txt of the model into the folder")
    tokenizer = Tokenizer.from_tokens(
        imported.vocabulary, imported.lower_case is not False, keep_accents=imported.keep_accents
    )
    settings = imported.model_settings()
    if DISCRIMINATOR not in imported.networks:
        settings["num_layers"] = 1  # of the discriminator, which is not used
    config = Config(
        model=ModelConfig(**settings),
        objective=ObjectiveConfig(kind=_objective(folder, imported.networks)),
        data=DataConfig(max_seq_length=imported.model_settings()["max_positions"], special=tokenizer.special),
    )
    shapes = jax.eval_shape(lambda: state.init_params(config))
    return PretrainedPair(folder, imported.networks, config, tokenizer, _fill_missing(shapes, imported.params))


def _objective(folder: str, networks: Sequence[str]) -> str:
    if any(model_dir.is_electric(path) for path, _ in model_dir.find_networks(folder)):
        return ELECTRIC
    return "electra" if GENERATOR in networks else "uniform"


def _load_workdir(folder: str) -> PretrainedPair:
    config, trained = load_pretrained_state(folder, sharding.make_mesh(MeshConfig()))
    tokens, manifest = workdir.read_vocab(folder, config), workdir.read_manifest(folder)
    return PretrainedPair(
        f"{folder} (step {int(trained.step):,})",
        convert.trained_networks(config),
        dataclasses.replace(config, model=dataclasses.replace(config.model, **PLAIN_MODEL)),
        Tokenizer.from_tokens(
            tokens,
            manifest is None or manifest.lower_case,
            keep_accents=manifest is not None and manifest.keep_accents,
        ),
        sharding.to_host(trained.params),
    )


def _fill_missing(shapes: Any, params: Any) -> Any:
    """Returns `params` with zeros for the leaves that only `shapes` has: those of a network that the folder lacks."""
    if isinstance(shapes, dict):
        return {name: _fill_missing(one, params.get(name, {})) for name, one in shapes.items()}
    return np.zeros(shapes.shape, shapes.dtype) if isinstance(params, dict) else params
