"""Converts the sizes of a network to and from Hugging Face's config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import json_values
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, SEQUENCE, SPAN, TOKEN, TOKEN_TYPES, Sizes

CLASSES = {
    DISCRIMINATOR: "ElectraForPreTraining",
    GENERATOR: "ElectraForMaskedLM",
    TOKEN: "ElectraForTokenClassification",
    SEQUENCE: "ElectraForSequenceClassification",
    SPAN: "ElectraForQuestionAnswering",
}
# Field of Sizes, key of config.json, and ElectraConfig's default for a missing key
# (transformers 5.23 models/electra/configuration_electra.py).
FIELDS = (
    ("vocab_size", "vocab_size", 30522),
    ("max_positions", "max_position_embeddings", 512),
    ("embedding_size", "embedding_size", 128),
    ("hidden_size", "hidden_size", 256),
    ("num_layers", "num_hidden_layers", 12),
    ("num_heads", "num_attention_heads", 4),
    ("intermediate_size", "intermediate_size", 1024),
)
# Constants of our encoder. They are Hugging Face's defaults too, so a missing key is compatible.
FIXED_VALUES = {
    "hidden_act": "gelu",  # the exact erf form in both
    "layer_norm_eps": 1e-12,
    "type_vocab_size": TOKEN_TYPES,
    "tie_word_embeddings": True,
}
OBJECTIVE = "pretraining_objective"  # our key of config.json: "electric" if the logits are energies
MAX_SIZE = 1 << 24  # of a size in config.json
ABSOLUTE = "absolute"  # position_embedding_type, a key of transformers 4; our encoder has no other type


def to_config_json(sizes: Sizes, network: str, model: ModelConfig, pad_token_id: int) -> dict[str, Any]:
    """Returns the content of config.json. `model` gives the dropout rates."""
    values = dataclasses.asdict(sizes)
    return {
        "architectures": [CLASSES[network]],
        "model_type": "electra",
        **{theirs: values[ours] for ours, theirs, _ in FIELDS},
        **FIXED_VALUES,
        "hidden_dropout_prob": model.dropout,
        "attention_probs_dropout_prob": model.attention_dropout,
        "initializer_range": 0.02,
        "pad_token_id": pad_token_id,
    }


def from_config_json(values: Mapping[str, Any], path: str) -> Sizes:
    """Returns the sizes in a config.json.

    Args:
      values: content of config.json.
      path: of the file, for error messages.

    Raises:
      UserError: the model is not an ELECTRA, or differs from our encoder in one of `FIXED_VALUES`.
    """
    if values.get("model_type") != "electra":
        raise UserError(
            f"{path}: model_type={json_values.shorten(values.get('model_type'))}; wanted 'electra'; only ELECTRA "
            "models can be imported"
        )
    wanted = FIXED_VALUES | {"position_embedding_type": ABSOLUTE}
    for key, value in wanted.items():
        if values.get(key, value) != value:
            raise UserError(
                f"{path}: {key}={json_values.shorten(values[key])}; only models with {key}={value!r} can be imported"
            )
    sizes = {}
    for ours, theirs, default in FIELDS:
        sizes[ours] = values.get(theirs, default)
        if type(sizes[ours]) is not int or not 0 < sizes[ours] <= MAX_SIZE:
            shown = json_values.shorten(sizes[ours])
            raise UserError(f"{path}: {theirs}={shown}; wanted an integer above 0, up to {MAX_SIZE:,}")
    if sizes["hidden_size"] % sizes["num_heads"]:
        raise UserError(
            f"{path}: hidden_size={sizes['hidden_size']} is not divisible by "
            f"num_attention_heads={sizes['num_heads']}; get an undamaged config.json"
        )
    return Sizes(**sizes)
