"""Writes Hugging Face folders from a parameter tree, and reads them into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import Config, ModelConfig
from electramed_jax.data.tokenizer import tokenizer as tokenize
from electramed_jax.hf import card
from electramed_jax.hf.format import config_json, mapping, model_dir
from electramed_jax.hf.format import tying as tying_lib
from electramed_jax.hf.format.mapping import DISCRIMINATOR, ELECTRIC, GENERATOR, NETWORKS, Sizes
from electramed_jax.hf.write_folders import FolderContent, write_folders


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """Content of a folder of one network or of a pair.

    Attributes:
      params: parameter tree of the networks in the folder, float32 numpy.
      sizes: by network: "discriminator", "generator" or both.
      tying: of the parameter tree.
      vocabulary: tokens by id; None if the folder has no tokenizer.
      lower_case: setting of the tokenizer; None if the folder does not contain it.
      keep_accents: setting of the tokenizer: lower-cased text keeps its accents.
      unused_rows: rows of the word table that were dropped because no token has their id.
      unexpected: tensors of the folder that our networks do not have.
    """

    params: dict[str, Any]
    sizes: dict[str, Sizes]
    tying: str
    vocabulary: list[str] | None
    lower_case: bool | None
    keep_accents: bool
    unused_rows: int
    unexpected: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """Networks of the folder: "discriminator", "generator" or both."""
        return tuple(self.sizes)

    @property
    def vocab_size(self) -> int:
        """Rows of the word table, which has one size in both networks."""
        return next(iter(self.sizes.values())).vocab_size

    def model_settings(self) -> dict[str, Any]:
        """Returns the fields of `ModelConfig` that the folder decides."""
        settings: dict[str, Any] = {
            "tying": self.tying,
            "vocab_size": self.vocab_size,
            "max_positions": next(iter(self.sizes.values())).max_positions,
        }
        for network, sizes in self.sizes.items():
            prefix = "generator_" if network == GENERATOR and self.tying != "all" else ""
            for field in ("hidden_size", "num_layers", "num_heads", "intermediate_size"):
                settings[prefix + field] = getattr(sizes, field)
            if not (network == GENERATOR and self.tying == "none"):
                settings["embedding_size"] = sizes.embedding_size
        return settings


def trained_networks(config: Config) -> tuple[str, ...]:
    """Returns the networks of a run that Hugging Face has a class for.

    Without generator: objective.kind=uniform, and electric, whose generator has two towers. Without discriminator: mlm.
    """
    only = {"uniform": (DISCRIMINATOR,), "electric": (DISCRIMINATOR,), "mlm": (GENERATOR,)}
    return only.get(config.objective.kind, NETWORKS)


def to_state_dict(params: Mapping[str, Any], model: ModelConfig, network: str) -> dict[str, np.ndarray]:
    """Returns the tensors of one network by Hugging Face's name, without the tied output matrix.

    Raises:
      UserError: `params` does not contain the network or does not fit `model`.
    """
    leaves = tying_lib.split_networks(params, model.tying).get(network)
    if leaves is None:
        raise UserError(f"this model has no {network}, because it was trained without one; export the other network")
    return mapping.to_hf_tensors(leaves, Sizes.from_model_config(model, network), network)


def from_state_dicts(
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    sizes: Mapping[str, Sizes],
    tying: str | None = None,
) -> tuple[dict[str, Any], str]:
    """Returns (parameter tree, tying) of one network or both, the inverse of `to_state_dict`.

    Args:
      tensors: by network, then by Hugging Face's name; an "encoder" is a discriminator without its head.
      sizes: by network.
      tying: of the parameter tree; None: detected from the tensors.

    Raises:
      UserError: tensors do not fit `sizes` or `tying`.
    """
    leaves = {_role(network): mapping.from_hf_tensors(one, sizes[network], network) for network, one in tensors.items()}
    tying = tying or tying_lib.detect_tying(leaves)
    return tying_lib.join_networks(leaves, tying), tying


def export_networks(
    folders: Mapping[str, str],
    params: Mapping[str, Any],
    model: ModelConfig,
    vocabulary: Sequence[str],
    *,
    lower_case: bool,
    keep_accents: bool = False,
    is_electric: bool = False,
    card_data: card.CardData,
    pictures: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a folder per network for transformers' `from_pretrained`: weights, config.json, tokenizer and model card.

    An earlier export in the folders is replaced; see `write_folders`.

    Args:
      folders: folder by network, "discriminator" (AutoModelForPreTraining) or "generator" (AutoModelForMaskedLM); local
        or remote; created if missing.
      params: parameter tree of the pair, on the host.
      model: sizes of the pair.
      vocabulary: tokens by id.
      lower_case, keep_accents: normalization of the text that the model was trained on, as in `Tokenizer`.
      is_electric: the discriminator's logits are energies (objective.kind=electric): card and config.json say so.
      card_data: content of the model card.
      pictures: PNG files of the card by name.

    Raises:
      UserError: the vocabulary and the word table differ in size, or the model does not have the network.
    """
    check_vocabulary_size(vocabulary, model)
    tokenizer = tokenize.Tokenizer.from_tokens(vocabulary, lower_case, keep_accents=keep_accents)
    contents = {}
    for network, folder in folders.items():
        sizes = Sizes.from_model_config(model, network)
        contents[folder] = FolderContent(
            to_state_dict(params, model, network),
            config_json.to_config_json(sizes, network, model, tokenizer.special.pad)
            | ({config_json.OBJECTIVE: ELECTRIC} if is_electric else {}),
            tokenizer,
            card.render_card(ELECTRIC if is_electric else network, card_data),
            pictures or {},
        )
    write_folders(contents)


def check_vocabulary_size(vocabulary: Sequence[str], model: ModelConfig) -> None:
    """Raises UserError unless the vocabulary has one token for each row of the word table."""
    if len(vocabulary) != model.vocab_size:
        raise UserError(
            f"the vocabulary has {len(vocabulary):,} tokens but the model has {model.vocab_size:,}; "
            "export with the vocab.txt the model was trained with"
        )


def import_folder(folder: str, tying: str | None = None, *, allow_headless: bool = False) -> ImportedModel:
    """Reads the folder of one network, or the parent of discriminator/ and generator/.

    Args:
      folder: local or remote; one network of a pair may be missing.
      tying: of the parameter tree; None: detected from the tensors.
      allow_headless: accept an encoder without a pre-training head in place of a discriminator.

    Raises:
      UserError: not such a folder, unreadable weights, an architecture that our encoder does not support, or files
        that do not fit each other.
    """
    read = [
        model_dir.read_network(path, network, allow_headless=allow_headless)
        for path, network in model_dir.find_networks(folder)
    ]
    first = read[0]
    for other in read[1:]:
        _check_pair(folder, first, other)
    sizes = {one.network: one.sizes for one in read}
    try:
        params, tying = from_state_dicts({one.network: one.tensors for one in read}, sizes, tying)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return ImportedModel(
        params=params,
        sizes={_role(network): one for network, one in sizes.items()},
        tying=tying,
        vocabulary=first.vocabulary,
        lower_case=first.lower_case,
        keep_accents=first.keep_accents,
        unused_rows=first.unused_rows,
        unexpected=tuple(name for one in read for name in one.unexpected),
    )


def _role(network: str) -> str:
    return DISCRIMINATOR if network == mapping.ENCODER else network


def _check_pair(folder: str, one: model_dir.Network, other: model_dir.Network) -> None:
    for field in ("vocab_size", "max_positions"):
        a, b = getattr(one.sizes, field), getattr(other.sizes, field)
        if a != b:
            raise UserError(
                f"{folder}: {field} is {a} in {one.network}/ and {b} in {other.network}/; import one of them alone"
            )
    if one.vocabulary != other.vocabulary:
        raise UserError(
            f"{folder}: {one.network}/ and {other.network}/ have different vocabularies; import one of them alone"
        )
