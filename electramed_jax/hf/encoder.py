"""An encoder without its pre-training head, wherever it is: a workdir of ours or a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import files
from electramed_jax.common.errors import UserError
from electramed_jax.config import Config, MeshConfig, ModelConfig
from electramed_jax.data import manifest as manifests
from electramed_jax.data import vocab
from electramed_jax.hf import folder as folders
from electramed_jax.hf import mapping, networks
from electramed_jax.hf.mapping import DISCRIMINATOR, GENERATOR
from electramed_jax.training import checkpoint, sharding, workdir


@dataclasses.dataclass(frozen=True)
class Encoder:
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


def read(place: str) -> Encoder:
    """The encoder of a workdir of `electramed pretrain` (its newest checkpoint) or of a Hugging Face ELECTRA folder.

    Raises:
      UserError: neither, or damaged, or a folder without a vocabulary.
    """
    if not files.exists(place):
        raise UserError(f"{place}: no such folder; wanted a workdir of electramed pretrain or a Hugging Face folder")
    if files.exists(files.join(place, workdir.DATASET_FILE)):
        return _of_workdir(place)
    return _of_folder(place)


def sizes(place: str) -> Encoder:
    """The same without parameters."""
    if files.exists(files.join(place, workdir.DATASET_FILE)):
        return _described(place, workdir.read_config(place))
    return dataclasses.replace(_of_folder(place), leaves={})


def _described(place: str, config: Config) -> Encoder:
    manifest = manifests.load(files.join(place, workdir.DATASET_FILE))
    tokens = vocab.read(files.join(place, workdir.VOCAB_FILE))
    return Encoder({}, config.model, tokens, manifest.lower_case, place)


def _of_workdir(place: str) -> Encoder:
    config, state = checkpoint.load(place, sharding.make_mesh(MeshConfig()))
    params, step = sharding.to_host(state.params), int(state.step)
    found = networks.split(params, config.model.tying)
    whole = found.get(DISCRIMINATOR) or found[GENERATOR]  # objective.kind=mlm trains one encoder, under a generator's head
    leaves = {name: leaf for name, leaf in whole.items() if not name.startswith("head/")}
    described = _described(place, config)
    return dataclasses.replace(described, leaves=leaves, source=f"{place}, step {step:,} of {config.total_steps:,}")


def _of_folder(place: str) -> Encoder:
    (at, name), *others = folders.find(place)
    if name == GENERATOR and not others:
        raise UserError(f"{place}: holds a generator alone; wanted a discriminator")
    network = folders.read(at, DISCRIMINATOR)
    if network.vocabulary is None:
        raise UserError(f"{at}: no {folders.VOCABULARY}; the words of a corpus cannot be told to this model without it")
    leaves = mapping.from_tensors(network.tensors, network.sizes, DISCRIMINATOR)
    leaves = {name: leaf for name, leaf in leaves.items() if not name.startswith("head/")}
    model = ModelConfig(**dataclasses.asdict(network.sizes))
    lower_case = True if network.lower_case is None else network.lower_case  # Hugging Face's default
    return Encoder(leaves, model, network.vocabulary, lower_case, place)
