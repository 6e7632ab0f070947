"""Hugging Face folders: written from a parameter tree, and read into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, ModelConfig
from electramed_jax.data.tokenizer import tokenizer as tokenize
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf import card
from electramed_jax.hf.format import config_json, mapping, model_dir
from electramed_jax.hf.format import tying as networks
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, NETWORKS, Sizes


@dataclasses.dataclass(frozen=True)
class ImportedModel:
    """What a folder held.

    Attributes:
      params: parameter tree of the networks found, float32 numpy; those of a network that is not
        there are missing.
      dimensions: fields of `ModelConfig` the folder decides, "tying" among them.
      networks: "discriminator", "generator" or both.
      vocabulary: tokens by id, or None where the folder has no tokenizer.
      lower_case: the tokenizer's setting, or None where the folder does not say.
      unused_rows: rows of the word table dropped because no token has them as its id.
      unexpected: tensors of the folder that no network of ours has.
    """

    params: dict[str, Any]
    sizes: dict[str, Sizes]
    tying: str
    vocabulary: list[str] | None
    lower_case: bool | None
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
    """The networks a run trains: no generator with uniform replacements, no head with mlm."""
    return {"uniform": (DISCRIMINATOR,), "mlm": (GENERATOR,)}.get(config.objective.kind, NETWORKS)


def to_state_dict(params: Mapping[str, Any], model: ModelConfig, network: str) -> dict[str, np.ndarray]:
    """One network's tensors under Hugging Face's names, less the tied output matrix.

    Raises:
      UserError: `params` lacks the network, or does not fit `model`.
    """
    leaves = networks.split_networks(params, model.tying).get(network)
    if leaves is None:
        raise UserError(f"this model has no {network}; it was trained without one")
    return mapping.to_hf_tensors(leaves, Sizes.from_model_config(model, network), network)


def from_state_dicts(
    tensors: Mapping[str, Mapping[str, np.ndarray]],
    sizes: Mapping[str, Sizes],
    tying: str | None = None,
) -> tuple[dict[str, Any], str]:
    """The inverse of `to_state_dict`, for one network or both.

    Args:
      tensors: by network, then by Hugging Face's name; an "encoder" is a discriminator without its head.
      sizes: by network.
      tying: how the parameter tree is to share; None takes what the tensors share.

    Returns:
      (parameter tree, tying).
    """
    leaves = {
        _role(network): mapping.from_hf_tensors(held, sizes[network], network) for network, held in tensors.items()
    }
    tying = tying or networks.detect_tying(leaves)
    return networks.join_networks(leaves, tying), tying


def export_network(
    network: str,
    folder: str,
    params: Mapping[str, Any],
    model: ModelConfig,
    vocabulary: Sequence[str],
    *,
    lower_case: bool,
    card_data: card.CardData,
) -> None:
    """Writes a folder that transformers' `from_pretrained` opens: weights, tokenizer and card.

    An earlier export there is replaced. config.json goes first and comes back last: without it
    nothing opens the folder.

    Args:
      network: "discriminator" (AutoModelForPreTraining) or "generator" (AutoModelForMaskedLM).
      folder: local or remote; made where it is missing.
      params: the pair's parameter tree, on the host.
      model: the pair's sizes.
      vocabulary: tokens by id.
      lower_case: whether the model was trained on lower-cased text.
      facts: for the card.

    Raises:
      UserError: the vocabulary and the word table differ in size, or the model lacks the network.
    """
    check_vocabulary_size(vocabulary, model)
    tensors = to_state_dict(params, model, network)
    tokenizer = tokenize.Tokenizer.from_tokens(vocabulary, lower_case)
    config = config_json.to_config_json(Sizes.from_model_config(model, network), network, model, tokenizer.special.pad)
    write_folder(folder, tensors, config, tokenizer, card.render_card(network, card_data))


def check_vocabulary_size(vocabulary: Sequence[str], model: ModelConfig) -> None:
    """Raises UserError unless there is a row of the word table for each token."""
    if len(vocabulary) != model.vocab_size:
        raise UserError(
            f"the vocabulary has {len(vocabulary):,} tokens but the model {model.vocab_size:,}; "
            "export with the vocab.txt the model was trained with"
        )


def write_folder(
    folder: str,
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    tokenizer: tokenize.Tokenizer,
    readme: str,
) -> None:
    """Writes what `from_pretrained` opens; config.json last, having gone first.

    Args:
      tensors: by Hugging Face's name.
      config: the content of config.json.
    """
    from safetensors import numpy as safetensors

    assert len(tokenizer.tokens) == len(tensors[mapping.WORD_TABLE]) == config["vocab_size"]
    files.remove(files.join(folder, model_dir.CONFIG))
    vocab.write_vocab(files.join(folder, vocab.VOCAB_FILE), tokenizer.tokens)
    files.write_text(files.join(folder, model_dir.TOKENIZER), tokenizer.backend.to_str(pretty=True))
    settings = _tokenizer_config(config["max_position_embeddings"], tokenizer.lower_case)
    files.write_json(files.join(folder, model_dir.TOKENIZER_CONFIG), settings)
    files.write_text(files.join(folder, model_dir.CARD), readme)
    with files.atomic_write(files.join(folder, model_dir.WEIGHTS)) as file:
        file.write(safetensors.save(dict(tensors), metadata={"format": "pt"}))
    files.write_json(files.join(folder, model_dir.CONFIG), config)


def import_folder(folder: str, tying: str | None = None, *, allow_headless: bool = False) -> ImportedModel:
    """Reads one network's folder, or the parent of discriminator/ and generator/ folders.

    Args:
      folder: local or remote; of a pair, one may be missing.
      tying: how the parameter tree is to share; None takes what the folder's networks share.
      allow_headless: an encoder without a pre-training head will do, in the place of a discriminator.

    Raises:
      UserError: not such a folder, weights that cannot be read, an architecture ours cannot
        compute, or files that contradict each other.
    """
    found = [
        model_dir.read_network(place, network, allow_headless=allow_headless)
        for place, network in model_dir.find_networks(folder)
    ]
    first = found[0]
    for other in found[1:]:
        _check_pair(folder, first, other)
    sizes = {one.network: one.sizes for one in found}
    try:
        params, tying = from_state_dicts({one.network: one.tensors for one in found}, sizes, tying)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    return ImportedModel(
        params=params,
        sizes={_role(network): one for network, one in sizes.items()},
        tying=tying,
        vocabulary=first.vocabulary,
        lower_case=first.lower_case,
        unused_rows=first.unused_rows,
        unexpected=tuple(name for one in found for name in one.unexpected),
    )


def _role(network: str) -> str:
    return DISCRIMINATOR if network == mapping.ENCODER else network


def _tokenizer_config(max_positions: int, lower_case: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": "ElectraTokenizer",
        "do_lower_case": lower_case,
        "model_max_length": max_positions,
        "unk_token": vocab.UNK,
        "sep_token": vocab.SEP,
        "pad_token": vocab.PAD,
        "cls_token": vocab.CLS,
        "mask_token": vocab.MASK,
    }


def _check_pair(folder: str, one: model_dir.Network, other: model_dir.Network) -> None:
    for field in ("vocab_size", "max_positions"):
        a, b = getattr(one.sizes, field), getattr(other.sizes, field)
        if a != b:
            raise UserError(
                f"{folder}: {field} is {a} in {one.network}/ and {b} in {other.network}/; import one of them by itself"
            )
    if one.vocabulary != other.vocabulary:
        raise UserError(
            f"{folder}: {one.network}/ and {other.network}/ have different vocabularies; import one of them by itself"
        )
