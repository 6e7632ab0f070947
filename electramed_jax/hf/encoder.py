"""Loads an encoder without its pre-training head from a pre-training workdir or a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, MeshConfig, ModelConfig
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf.format import mapping, model_dir, tying
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR
from electramed_jax.pretrain import workdir
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.training import sharding


@dataclasses.dataclass(frozen=True)
class PretrainedEncoder:
    """Encoder without a head.

    Attributes:
      leaves: float32 numpy by name: "embeddings/...", "project/...", "layers/...".
      model: sizes of the encoder; the settings of the generator are not meaningful.
      tokens: vocabulary by id.
      lower_case, keep_accents: normalization of text, as in `Tokenizer`.
      source: description of the origin, for log lines.
    """

    leaves: dict[str, Any]
    model: ModelConfig
    tokens: list[str]
    lower_case: bool
    source: str
    keep_accents: bool = False


def load_encoder(path: str) -> PretrainedEncoder:
    """Loads the encoder of a workdir of `electramed pretrain` (newest checkpoint) or of a Hugging Face ELECTRA folder.

    Raises:
      UserError: `path` is neither, is damaged, or has no vocabulary.
    """
    if not files.exists(path):
        raise UserError(f"{path}: no such folder; wanted a workdir of electramed pretrain or a Hugging Face folder")
    if files.exists(files.join(path, workdir.DATASET_FILE)):
        return _load_from_workdir(path)
    return _load_from_folder(path)


def load_encoder_sizes(path: str) -> PretrainedEncoder:
    """Returns what `load_encoder` returns, without parameters."""
    if files.exists(files.join(path, workdir.DATASET_FILE)):
        return _load_sizes_from_workdir(path, workdir.read_config(path))
    return dataclasses.replace(_load_from_folder(path), leaves={})


def _load_sizes_from_workdir(path: str, config: Config) -> PretrainedEncoder:
    manifest = manifests.load_manifest(files.join(path, workdir.DATASET_FILE))
    tokens = workdir.read_vocab(path, config)
    return PretrainedEncoder({}, config.model, tokens, manifest.lower_case, path, manifest.keep_accents)


def _load_from_workdir(path: str) -> PretrainedEncoder:
    config, state = load_pretrained_state(path, sharding.make_mesh(MeshConfig()))
    params, step = sharding.to_host(state.params), int(state.step)
    networks = tying.split_networks(params, config.model.tying)
    # objective.kind=mlm trains one encoder, under a generator's head
    network = networks.get(DISCRIMINATOR) or networks[GENERATOR]
    leaves = {name: leaf for name, leaf in network.items() if not name.startswith("head/")}
    encoder = _load_sizes_from_workdir(path, config)
    return dataclasses.replace(encoder, leaves=leaves, source=f"{path}, step {step:,} of {config.total_steps:,}")


def _load_from_folder(path: str) -> PretrainedEncoder:
    below = files.join(path, DISCRIMINATOR)  # `electramed export` writes both networks of a pair
    folder = path if files.exists(files.join(path, model_dir.CONFIG)) else below
    if not files.exists(files.join(folder, model_dir.CONFIG)):
        raise UserError(
            f"{path}: no {workdir.DATASET_FILE} and no {model_dir.CONFIG} in it or in its {DISCRIMINATOR}/; "
            "wanted a workdir of electramed pretrain or a Hugging Face ELECTRA folder"
        )
    network = model_dir.read_encoder(folder)
    if network.vocabulary is None:
        raise UserError(f"{folder}: no {vocab.VOCAB_FILE}; wanted the vocabulary of the model in the same folder")
    leaves = mapping.from_hf_tensors(network.tensors, network.sizes, mapping.ENCODER)
    lower_case = True if network.lower_case is None else network.lower_case  # Hugging Face's default
    model = network.sizes.to_model_config()
    return PretrainedEncoder(leaves, model, network.vocabulary, lower_case, path, network.keep_accents)
