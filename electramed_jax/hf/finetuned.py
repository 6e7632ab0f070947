"""A fine-tuned model as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.trees import named_leaves
from electramed_jax.config import ModelConfig
from electramed_jax.data.tokenize import Tokenizer
from electramed_jax.hf import architecture, card, convert, mapping
from electramed_jax.hf.mapping import SPAN, Sizes

# How transformers' loss, and its text-classification pipeline, take the logits.
PROBLEMS = {
    "softmax": "single_label_classification",
    "sigmoid": "multi_label_classification",
    "squared": "regression",
}


def to_state_dict(params: Mapping[str, Any], model: ModelConfig, kind: str, num_labels: int) -> dict[str, np.ndarray]:
    """Hugging Face's tensors.

    Args:
      params: {"embeddings", "encoder", "head"}, on the host.
      model: sizes of the encoder.
      kind: of the head: "token", "sequence" or "span".
    """
    leaves = {name.removeprefix("encoder/"): leaf for name, leaf in named_leaves(params).items()}
    return mapping.to_tensors(leaves, _sizes(model, kind, num_labels), kind)


def export(
    folder: str,
    params: Mapping[str, Any],
    model: ModelConfig,
    tokenizer: Tokenizer,
    *,
    kind: str,
    labels: Sequence[str],
    loss: str,
    facts: card.Facts,
) -> None:
    """Writes ElectraForTokenClassification, ...SequenceClassification or ...QuestionAnswering with its tokenizer.

    An earlier export there is replaced.

    Args:
      params, model, kind: as of `to_state_dict`.
      labels: names of the logits, by number.
      loss: "softmax", "sigmoid" or "squared".
      facts: for the card.
    """
    convert.check_vocabulary_size(tokenizer.tokens, model)
    tensors = to_state_dict(params, model, kind, len(labels))
    config = architecture.to_json(_sizes(model, kind, len(labels)), kind, model, tokenizer.special.pad)
    if kind != SPAN:
        config |= {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": PROBLEMS[loss],
        }
    convert.write_folder(folder, tensors, config, tokenizer, card.text(kind, facts))


def _sizes(model: ModelConfig, kind: str, num_labels: int) -> Sizes:
    return dataclasses.replace(Sizes.of(model, kind), num_labels=num_labels)
