"""Writes and reads fine-tuned models as Hugging Face folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config.finetune import CLS, POOLED_VECTORS
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE
from electramed_jax.hf import card, convert
from electramed_jax.hf.format import config_json, mapping, model_dir, tying
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN, Sizes
from electramed_jax.hf.write_folders import FolderContent, write_folders

# Our loss -> problem_type of transformers, which selects the loss and the activation of the pipeline.
PROBLEM_TYPES = {
    "softmax": "single_label_classification",
    "sigmoid": "multi_label_classification",
    "squared": "regression",
}
POSTPROCESS_KEY, POOLING_KEY = "electramed", "electramed_pooling"  # keys of config.json
_ADVICE = "export the model again, or copy the whole folder again"
# Architecture in config.json -> kind of the head.
HEAD_KINDS = {config_json.CLASSES[kind]: kind for kind in (TOKEN, SEQUENCE, SPAN)}


class Pooling(TypedDict):
    """The vectors that a "sequence" head reads in addition to [CLS], which transformers' head does not.

    kind: value of config.text.pooling; markers: the placeholders that it looks for.
    """

    kind: str
    markers: list[str]


class FinetunedConfig(TypedDict, total=False):
    """The keys of config.json that are read, besides the sizes."""

    architectures: list[str] | None
    problem_type: str | None
    id2label: dict[str, Any] | None
    electramed: Any  # POSTPROCESS_KEY
    electramed_pooling: Pooling | None  # POOLING_KEY


@dataclasses.dataclass(frozen=True)
class FinetunedModel:
    """Content of the folder of a fine-tuned model.

    Attributes:
      params: {"embeddings", "encoder", "head"}, float32 numpy.
      model: sizes of the encoder.
      tokenizer: with the vocabulary of the folder.
      kind: of the head: "token", "sequence" or "span".
      labels, loss, postprocess: as in `export_finetuned`; postprocess is {} if another program wrote the folder.
      pooling: value of config.text.pooling.
      markers: token ids of the placeholders that `pooling` looks for.
    """

    params: dict[str, Any]
    model: ModelConfig
    tokenizer: Tokenizer
    kind: str
    labels: tuple[str, ...]
    loss: str
    postprocess: Any
    pooling: str = CLS
    markers: tuple[int, ...] = ()


def load_finetuned(folder: str) -> FinetunedModel:
    """Reads a folder written by `export_finetuned` or by transformers' `save_pretrained`.

    Raises:
      UserError: there is no such folder, or it is damaged or of another kind of model.
    """
    path = files.join(folder, model_dir.CONFIG)
    if not files.exists(path):
        raise UserError(
            f"{folder}: no {model_dir.CONFIG} in it; wanted a workdir of electramed finetune, or a Hugging Face folder "
            "of a fine-tuned ELECTRA"
        )
    values = json_values.convert(model_dir.read_config(folder), FinetunedConfig, path, advice=_ADVICE)
    classes = values.get("architectures")
    kinds = [HEAD_KINDS[name] for name in classes or () if name in HEAD_KINDS]
    if len(kinds) != 1:
        raise UserError(
            f"{path}: architectures={json_values.shorten(classes)}; wanted that of a fine-tuned ELECTRA, one of "
            f"{', '.join(HEAD_KINDS)}"
        )
    kind = kinds[0]
    pooled: Pooling = values.get("electramed_pooling") or {"kind": CLS, "markers": []}
    if pooled["kind"] not in POOLED_VECTORS:
        raise UserError(
            f"{path}: {POOLING_KEY} with kind={pooled['kind']!r}; wanted one of {', '.join(POOLED_VECTORS)}; {_ADVICE}"
        )
    network = model_dir.read_finetuned(folder, kind, POOLED_VECTORS[pooled["kind"]])
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
        raise UserError(f"{folder}: no {VOCAB_FILE}; wanted the vocabulary of the model in the same folder")
    never_split = model_dir.read_never_split(folder)
    tokenizer = Tokenizer.from_tokens(
        network.vocabulary, network.lower_case is not False, never_split, keep_accents=network.keep_accents
    )
    if unknown := set(pooled["markers"]) - set(tokenizer.tokens):
        raise UserError(f"{path}: {POOLING_KEY} looks for {min(unknown)}, which {VOCAB_FILE} does not have; {_ADVICE}")
    return FinetunedModel(
        params=tying.unflatten(leaves),
        model=model,
        tokenizer=tokenizer,
        kind=kind,
        labels=labels,
        loss=losses[problem] if kind == SEQUENCE else "softmax",
        postprocess=values.get(POSTPROCESS_KEY, {}),
        pooling=pooled["kind"],
        markers=tuple(map(tokenizer.tokens.index, pooled["markers"])),
    )


def _labels(values: FinetunedConfig, kind: str, count: int, path: str) -> tuple[str, ...]:
    if kind == SPAN:
        return ("start", "end")
    named = values.get("id2label") or {str(number): f"LABEL_{number}" for number in range(count)}
    if sorted(named) != sorted(map(str, range(count))):
        raise UserError(
            f"{path}: id2label has the keys {', '.join(named)[:100]}; wanted 0 to {count - 1}, one for each logit "
            "of the head"
        )
    return tuple(str(named[str(number)]) for number in range(count))


def to_state_dict(
    params: Mapping[str, Any], model: ModelConfig, kind: str, num_labels: int, pooling: str = CLS
) -> dict[str, np.ndarray]:
    """Returns the tensors of a fine-tuned model by Hugging Face's name, without the transition scores of a CRF.

    Args:
      params: {"embeddings", "encoder", "head"}, on the host.
      model: sizes of the encoder.
      kind: of the head: "token", "sequence" or "span".
      num_labels: logits of the head.
      pooling: value of config.text.pooling. transformers has no such head unless it is "cls": the dense layer then
        reads more vectors.
    """
    named = {name: leaf for name, leaf in named_leaves(params).items() if not name.startswith("head/crf/")}
    leaves = {name.removeprefix("encoder/"): leaf for name, leaf in named.items()}
    return mapping.to_hf_tensors(leaves, _sizes(model, kind, num_labels, pooling), kind)


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
    pooling: str = CLS,
    markers: Sequence[int] = (),
) -> None:
    """Writes ElectraForTokenClassification, ...SequenceClassification or ...QuestionAnswering with its tokenizer.

    An earlier export in the folder is replaced; see `write_folders`. With a pooling other than "cls", transformers
    refuses the folder, because the size of the classifier differs; `load_finetuned` and `onnx_export` read it.

    Args:
      folder: local or remote; created if missing.
      params, model, kind: as in `to_state_dict`.
      tokenizer: with the vocabulary of the model.
      labels: names of the logits, in order.
      loss: "softmax", "sigmoid" or "squared".
      postprocess: settings that turn logits into predictions, for `load_finetuned`; transformers ignores them.
      card_data: content of the model card.
      pooling, markers: as in `FinetunedModel`.

    Raises:
      UserError: the vocabulary and the word table differ in size.
    """
    convert.check_vocabulary_size(tokenizer.tokens, model)
    tensors = to_state_dict(params, model, kind, len(labels), pooling)
    config = config_json.to_config_json(_sizes(model, kind, len(labels), pooling), kind, model, tokenizer.special.pad)
    config |= {POSTPROCESS_KEY: dict(postprocess)}
    if pooling != CLS:
        config |= {POOLING_KEY: {"kind": pooling, "markers": [tokenizer.tokens[marker] for marker in markers]}}
    if kind != SPAN:
        config |= {
            "id2label": {str(number): label for number, label in enumerate(labels)},
            "label2id": {label: number for number, label in enumerate(labels)},
            "problem_type": PROBLEM_TYPES[loss],
        }
    write_folders({folder: FolderContent(tensors, config, tokenizer, card.render_card(kind, card_data))})


def _sizes(model: ModelConfig, kind: str, num_labels: int, pooling: str) -> Sizes:
    vectors = POOLED_VECTORS[pooling]
    return dataclasses.replace(Sizes.from_model_config(model, kind), num_labels=num_labels, num_vectors=vectors)
