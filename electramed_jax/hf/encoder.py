"""An encoder without its pre-training head, wherever it is: a workdir of ours or a Hugging Face folder."""

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
    """An encoder by itself.

    Attributes:
      leaves: float32 numpy by name: "embeddings/...", "project/...", "layers/...".
      model: its sizes; what is said of a generator means nothing.
      tokens: the vocabulary, by id.
      lower_case: whether text is lower-cased.
      source: for a person: what it is.
    """

    leaves: dict[str, Any]
    model: ModelConfig
    tokens: list[str]
    lower_case: bool
    source: str


def load_encoder(place: str) -> PretrainedEncoder:
    """The encoder of a workdir of `electramed pretrain` (its newest checkpoint) or of a Hugging Face ELECTRA folder.

    Raises:
      UserError: neither, or damaged, or a folder without a vocabulary.
    """
    if not files.exists(place):
        raise UserError(f"{place}: no such folder; wanted a workdir of electramed pretrain or a Hugging Face folder")
    if files.exists(files.join(place, workdir.DATASET_FILE)):
        return _load_from_workdir(place)
    return _load_from_folder(place)


def load_encoder_sizes(place: str) -> PretrainedEncoder:
    """The same without parameters."""
    if files.exists(files.join(place, workdir.DATASET_FILE)):
        return _load_sizes_from_workdir(place, workdir.read_config(place))
    return dataclasses.replace(_load_from_folder(place), leaves={})


def _load_sizes_from_workdir(place: str, config: Config) -> PretrainedEncoder:
    manifest = manifests.load_manifest(files.join(place, workdir.DATASET_FILE))
    tokens = vocab.read_vocab(files.join(place, vocab.VOCAB_FILE))
    return PretrainedEncoder({}, config.model, tokens, manifest.lower_case, place)


def _load_from_workdir(place: str) -> PretrainedEncoder:
    config, state = load_pretrained_state(place, sharding.make_mesh(MeshConfig()))
    params, step = sharding.to_host(state.params), int(state.step)
    found = tying.split_networks(params, config.model.tying)
    whole = (
        found.get(DISCRIMINATOR) or found[GENERATOR]
    )  # objective.kind=mlm trains one encoder, under a generator's head
    leaves = {name: leaf for name, leaf in whole.items() if not name.startswith("head/")}
    described = _load_sizes_from_workdir(place, config)
    return dataclasses.replace(described, leaves=leaves, source=f"{place}, step {step:,} of {config.total_steps:,}")


def _load_from_folder(place: str) -> PretrainedEncoder:
    below = files.join(place, DISCRIMINATOR)  # where `electramed export` puts it
    at = place if files.exists(files.join(place, model_dir.CONFIG)) else below
    if not files.exists(files.join(at, model_dir.CONFIG)):
        raise UserError(
            f"{place}: no {workdir.DATASET_FILE} and no {model_dir.CONFIG} in it, nor in {DISCRIMINATOR}/ below it; "
            "wanted a workdir of electramed pretrain or a Hugging Face ELECTRA folder"
        )
    network = model_dir.read_encoder(at)
    if network.vocabulary is None:
        raise UserError(f"{at}: no {vocab.VOCAB_FILE}; without it a corpus cannot be told to this model")
    leaves = mapping.from_hf_tensors(network.tensors, network.sizes, mapping.ENCODER)
    lower_case = True if network.lower_case is None else network.lower_case  # Hugging Face's default
    return PretrainedEncoder(leaves, network.sizes.to_model_config(), network.vocabulary, lower_case, place)
