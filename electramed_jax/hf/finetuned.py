"""A fine-tuned model as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.hf import card, convert
from electramed_jax.hf.format import config_json, mapping, model_dir, tying
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN, Sizes

# How transformers' loss, and its text-classification pipeline, take the logits.
PROBLEM_TYPES = {
    "softmax": "single_label_classification",
    "sigmoid": "multi_label_classification",
    "squared": "regression",
}


POSTPROCESS_KEY = "electramed"  # a key of config.json
# The architectures by the kind of their head.
HEAD_KINDS = {config_json.CLASSES[kind]: kind for kind in (TOKEN, SEQUENCE, SPAN)}


@dataclasses.dataclass(frozen=True)
class FinetunedModel:
    """What a folder holds.

    Attributes:
      params: {"embeddings", "encoder", "head"}, float32 numpy.
      kind: of the head: "token", "sequence" or "span".
      labels, loss: as of `export_finetuned`.
      decoding: what `export_finetuned` was given; {} where another program wrote the folder.
    """

    params: dict[str, Any]
    model: ModelConfig
    tokenizer: Tokenizer
    kind: str
    labels: tuple[str, ...]
    loss: str
    postprocess: Any


def load_finetuned(folder: str) -> FinetunedModel:
    """A folder that `export_finetuned`, or transformers' `save_pretrained`, wrote.

    Raises:
      UserError: no such folder, of another kind of model, or damaged.
    """
    path = files.join(folder, model_dir.CONFIG)
    if not files.exists(path):
        raise UserError(
            f"{folder}: no {model_dir.CONFIG} in it; wanted a workdir of electramed finetune, or a Hugging Face folder "
            "of a fine-tuned ELECTRA"
        )
    values = files.read_json(path)
    classes = values.get("architectures") if isinstance(values, dict) else None
    found = [HEAD_KINDS[name] for name in classes or () if name in HEAD_KINDS]
    if len(found) != 1:
        raise UserError(f"{path}: architectures={classes}; wanted a fine-tuned ELECTRA: one of {', '.join(HEAD_KINDS)}")
    kind = found[0]
    network = model_dir.read_finetuned(folder, kind)
    sizes = network.sizes
    labels = _labels(values, kind, sizes.num_labels, path)
    problem = values.get("problem_type") or PROBLEM_TYPES["squared" if len(labels) == 1 else "softmax"]
    losses = {theirs: ours for ours, theirs in PROBLEM_TYPES.items()}
    if problem not in losses:
        raise UserError(f"{path}: problem_type={problem!r}; wanted one of {', '.join(losses)}")
    leaves = mapping.from_hf_tensors(network.tensors, sizes, kind)
    tops = (tying.EMBEDDINGS, "head/")
    leaves = {name if name.startswith(tops) else f"encoder/{name}": leaf for name, leaf in leaves.items()}
    model = sizes.to_model_config()
    if network.vocabulary is None:
        raise UserError(f"{folder}: no {VOCAB_FILE}; without it a text cannot be told to this model")
    whole = model_dir.read_never_split(folder)
    tokenizer = Tokenizer.from_tokens(network.vocabulary, network.lower_case is not False, whole)
    loss = losses[problem] if kind == SEQUENCE else "softmax"
    return FinetunedModel(
        tying.unflatten(leaves), model, tokenizer, kind, labels, loss, values.get(POSTPROCESS_KEY, {})
    )


def _labels(values: Mapping[str, Any], kind: str, count: int, path: str) -> tuple[str, ...]:
    if kind == SPAN:
        return ("start", "end")
    named = values.get("id2label") or {str(number): f"LABEL_{number}" for number in range(count)}
    if sorted(named) != sorted(map(str, range(count))):
        raise UserError(f"{path}: id2label names {', '.join(named)}; the head has {count} labels, from 0 on")
    return tuple(str(named[str(number)]) for number in range(count))


def to_state_dict(params: Mapping[str, Any], model: ModelConfig, kind: str, num_labels: int) -> dict[str, np.ndarray]:
    """Hugging Face's tensors.

    Args:
      params: {"embeddings", "encoder", "head"}, on the host.
      model: sizes of the encoder.
      kind: of the head: "token", "sequence" or "span".
    """
    leaves = {name.removeprefix("encoder/"): leaf for name, leaf in named_leaves(params).items()}
    return mapping.to_hf_tensors(leaves, _sizes(model, kind, num_labels), kind)


def export_finetuned(
    folder: str,
    params: Mapping[str, Any],
    model: ModelConfig,
    tokenizer: Tokenizer,
    *,
    kind: str,
    labels: Sequence[str],
    loss: str,
    postprocess: Mapping[str, Any],
    card_data: card.CardData,
) -> None:
    """Writes ElectraForTokenClassification, ...SequenceClassification or ...QuestionAnswering with its tokenizer.

    An earlier export there is replaced.

    Args:
      params, model, kind: as of `to_state_dict`.
      labels: names of the logits, by number.
      loss: "softmax", "sigmoid" or "squared".
      decoding: how answers are read off the logits, for `read_network`; transformers passes it over.
      facts: for the card.
    """
    convert.check_vocabulary_size(tokenizer.tokens, model)
    tensors = to_state_dict(params, model, kind, len(labels))
    config = config_json.to_config_json(_sizes(model, kind, len(labels)), kind, model, tokenizer.special.pad)
    config |= {POSTPROCESS_KEY: dict(postprocess)}
    if kind != SPAN:
        config |= {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": PROBLEM_TYPES[loss],
        }
    convert.write_folder(folder, tensors, config, tokenizer, card.render_card(kind, card_data))


def _sizes(model: ModelConfig, kind: str, num_labels: int) -> Sizes:
    return dataclasses.replace(Sizes.from_model_config(model, kind), num_labels=num_labels)
