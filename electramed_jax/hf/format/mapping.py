"""Converts the parameters of one network to and from Hugging Face's tensors, by one table for both directions.

A `TensorRule` is: our leaf and its axes <-> their tensor and its axes. The axes define the transform. A letter is one
axis; `NH` is two axes merged into one. Axes of ours that are missing in theirs (`L`, `Q`) are part of the tensor's
name: `{L}` becomes the number of the layer, `{Q}` query, key or value.

    V  vocabulary (padded in ours)  D  encoder width     N  attention heads  L  layers
    P  positions                    O  D as output       H  size of a head   Q  query, key, value
    S  token types                  F  feed-forward      E  embedding size   1  one
                    I  input of a head              K  labels

Names of tensors: transformers 4.46 and 5.23, models/electra/modeling_electra.py. Classes: ElectraForPreTraining
(our discriminator), ElectraForMaskedLM (our generator), ElectraForTokenClassification ("token"),
ElectraForSequenceClassification ("sequence"), ElectraForQuestionAnswering ("span"), ElectraModel ("encoder"). torch's
Linear is [out, in], our kernels are [in, out].
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import ModelConfig, pad_vocab_size

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
NETWORKS = (DISCRIMINATOR, GENERATOR)
ELECTRIC = "electric"  # a discriminator whose logits are energies
ENCODER, TOKEN, SEQUENCE, SPAN = "encoder", "token", "sequence", "span"
TOKEN_TYPES = 2
MAX_NAMES_SHOWN = 6  # leaves or tensors in one error message


class TensorRule(NamedTuple):
    """Our leaf, its axes, their tensor, its axes; axes are separated by blanks."""

    ours: str
    our_axes: str
    theirs: str
    their_axes: str


EMBEDDING_RULES = (
    TensorRule("embeddings/word", "V E", "electra.embeddings.word_embeddings.weight", "V E"),
    TensorRule("embeddings/position", "P E", "electra.embeddings.position_embeddings.weight", "P E"),
    TensorRule("embeddings/token_type", "S E", "electra.embeddings.token_type_embeddings.weight", "S E"),
    TensorRule("embeddings/norm/scale", "E", "electra.embeddings.LayerNorm.weight", "E"),
    TensorRule("embeddings/norm/bias", "E", "electra.embeddings.LayerNorm.bias", "E"),
)
PROJECTION_RULES = (  # only if embeddings and encoder differ in width
    TensorRule("project/kernel", "E D", "electra.embeddings_project.weight", "D E"),
    TensorRule("project/bias", "D", "electra.embeddings_project.bias", "D"),
)
_LAYER = "electra.encoder.layer.{L}."
LAYER_RULES = (
    TensorRule("layers/attention/qkv/kernel", "L D Q N H", _LAYER + "attention.self.{Q}.weight", "NH D"),
    TensorRule("layers/attention/qkv/bias", "L Q N H", _LAYER + "attention.self.{Q}.bias", "NH"),
    TensorRule("layers/attention/out/kernel", "L N H D", _LAYER + "attention.output.dense.weight", "D NH"),
    TensorRule("layers/attention/out/bias", "L D", _LAYER + "attention.output.dense.bias", "D"),
    TensorRule("layers/attention/norm/scale", "L D", _LAYER + "attention.output.LayerNorm.weight", "D"),
    TensorRule("layers/attention/norm/bias", "L D", _LAYER + "attention.output.LayerNorm.bias", "D"),
    TensorRule("layers/feed_forward/up/kernel", "L D F", _LAYER + "intermediate.dense.weight", "F D"),
    TensorRule("layers/feed_forward/up/bias", "L F", _LAYER + "intermediate.dense.bias", "F"),
    TensorRule("layers/feed_forward/down/kernel", "L F D", _LAYER + "output.dense.weight", "D F"),
    TensorRule("layers/feed_forward/down/bias", "L D", _LAYER + "output.dense.bias", "D"),
    TensorRule("layers/feed_forward/norm/scale", "L D", _LAYER + "output.LayerNorm.weight", "D"),
    TensorRule("layers/feed_forward/norm/bias", "L D", _LAYER + "output.LayerNorm.bias", "D"),
)
HEAD_RULES = {
    DISCRIMINATOR: (
        TensorRule("head/dense/kernel", "D O", "discriminator_predictions.dense.weight", "O D"),
        TensorRule("head/dense/bias", "O", "discriminator_predictions.dense.bias", "O"),
        TensorRule("head/logit/kernel", "D 1", "discriminator_predictions.dense_prediction.weight", "1 D"),
        TensorRule("head/logit/bias", "1", "discriminator_predictions.dense_prediction.bias", "1"),
    ),
    GENERATOR: (
        TensorRule("head/dense/kernel", "D E", "generator_predictions.dense.weight", "E D"),
        TensorRule("head/dense/bias", "E", "generator_predictions.dense.bias", "E"),
        TensorRule("head/norm/scale", "E", "generator_predictions.LayerNorm.weight", "E"),
        TensorRule("head/norm/bias", "E", "generator_predictions.LayerNorm.bias", "E"),
        # The output matrix is the word table: generator_lm_head.weight is tied to it and is not stored.
        TensorRule("head/output_bias", "V", "generator_lm_head.bias", "V"),
    ),
    ENCODER: (),
    TOKEN: (
        TensorRule("head/logit/kernel", "D K", "classifier.weight", "K D"),
        TensorRule("head/logit/bias", "K", "classifier.bias", "K"),
    ),
    SEQUENCE: (
        TensorRule("head/dense/kernel", "I O", "classifier.dense.weight", "O I"),
        TensorRule("head/dense/bias", "O", "classifier.dense.bias", "O"),
        TensorRule("head/logit/kernel", "D K", "classifier.out_proj.weight", "K D"),
        TensorRule("head/logit/bias", "K", "classifier.out_proj.bias", "K"),
    ),
    SPAN: (
        TensorRule("head/logit/kernel", "D K", "qa_outputs.weight", "K D"),
        TensorRule("head/logit/bias", "K", "qa_outputs.bias", "K"),
    ),
}
QKV = ("query", "key", "value")
NAME_AXES = "LQ"  # axes of ours that are part of the tensor names
WORD_TABLE = "electra.embeddings.word_embeddings.weight"
TIED_OUTPUT = "generator_lm_head.weight"
VOCABULARY_TENSORS = (WORD_TABLE, TIED_OUTPUT, "generator_lm_head.bias")  # one row per token
# Buffers that old versions of transformers saved.
BUFFERS = ("electra.embeddings.position_ids", "electra.embeddings.token_type_ids")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one network: embeddings, encoder and head."""

    vocab_size: int
    max_positions: int
    embedding_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_labels: int = 1  # logits of a fine-tuned head
    num_vectors: int = 1  # vectors of an example that a "sequence" head reads: 1 in transformers, [CLS]

    @classmethod
    def from_model_config(cls, model: ModelConfig, network: str) -> Sizes:
        """Returns the sizes of the pair's generator if `network` is "generator", else those of its discriminator."""
        is_generator = network == GENERATOR
        return cls(
            vocab_size=model.vocab_size,
            max_positions=model.max_positions,
            embedding_size=model.generator_embedding_size if is_generator else model.embedding_size,
            **dataclasses.asdict(model.generator if is_generator else model.discriminator),
        )

    def to_model_config(self) -> ModelConfig:
        """Returns a pair with a discriminator of these sizes and the default generator."""
        sizes = dataclasses.asdict(self)
        del sizes["num_labels"], sizes["num_vectors"]
        return ModelConfig(**sizes)

    def axis_lengths(self, *, padded: bool) -> dict[str, int]:
        """Returns the length of each axis letter; `padded` selects our word table, else Hugging Face's."""
        return {
            "V": pad_vocab_size(self.vocab_size) if padded else self.vocab_size,
            "P": self.max_positions,
            "S": TOKEN_TYPES,
            "E": self.embedding_size,
            "D": self.hidden_size,
            "O": self.hidden_size,
            "I": self.num_vectors * self.hidden_size,
            "N": self.num_heads,
            "H": self.hidden_size // self.num_heads,
            "F": self.intermediate_size,
            "L": self.num_layers,
            "Q": len(QKV),
            "K": self.num_labels,
            "1": 1,
        }


def to_hf_tensors(leaves: Mapping[str, np.ndarray], sizes: Sizes, network: str) -> dict[str, np.ndarray]:
    """Converts the leaves of one network to Hugging Face's tensors: float32, contiguous, without vocabulary padding.

    Args:
      leaves: leaves of the network by name, from `tying.split_networks`.
      sizes: of the network.
      network: a key of `HEAD_RULES`.

    Raises:
      UserError: a leaf is missing, unknown, or has another shape than the sizes require.
    """
    rules = tensor_rules(network, sizes)
    ours, theirs = sizes.axis_lengths(padded=True), sizes.axis_lengths(padded=False)
    wanted = {rule.ours: _shape(rule.our_axes, ours) for rule in rules}
    _check_names_and_shapes(wanted, leaves, f"the {network}'s parameters", "its configuration")
    tensors = {}
    for rule in rules:
        axes = rule.our_axes.split()
        unpadded = np.asarray(leaves[rule.ours], np.float32)[tuple(slice(theirs[a]) for a in axes)]
        by_name = unpadded.transpose([axes.index(a) for a in _axes_by_name_first(rule)])
        for index, name in _tensor_names(rule, sizes):
            # Contiguous, because safetensors stores a transposed view in memory order, which is silently wrong.
            tensors[name] = np.ascontiguousarray(by_name[index].reshape(_shape(rule.their_axes, theirs)))
    return tensors


def from_hf_tensors(tensors: Mapping[str, np.ndarray], sizes: Sizes, network: str) -> dict[str, np.ndarray]:
    """Converts Hugging Face's tensors to the leaves of one network: float32, the vocabulary padded with zeros.

    The inverse of `to_hf_tensors`. `BUFFERS` are ignored, and so is an output matrix equal to the word table.

    Raises:
      UserError: a tensor is missing, unknown, or has another shape than the sizes require; or the output matrix of
        the generator differs from its word table.
    """
    rules = tensor_rules(network, sizes)
    ours, theirs = sizes.axis_lengths(padded=True), sizes.axis_lengths(padded=False)
    wanted = {name: _shape(rule.their_axes, theirs) for rule in rules for _, name in _tensor_names(rule, sizes)}
    _check_names_and_shapes(wanted, _drop_redundant(tensors), f"the {network}'s tensors", "its config.json")
    leaves = {}
    for rule in rules:
        axes, order = rule.our_axes.split(), _axes_by_name_first(rule)
        stacked = np.stack([np.asarray(tensors[name], np.float32) for _, name in _tensor_names(rule, sizes)])
        unpadded = stacked.reshape([theirs[a] for a in order]).transpose([order.index(a) for a in axes])
        leaves[rule.ours] = np.pad(unpadded, [(0, ours[a] - theirs[a]) for a in axes])
    return leaves


def tensor_rules(network: str, sizes: Sizes) -> tuple[TensorRule, ...]:
    """Returns the rules for a network of these sizes; the projection exists only if the widths differ."""
    projection = PROJECTION_RULES if sizes.embedding_size != sizes.hidden_size else ()
    return EMBEDDING_RULES + projection + LAYER_RULES + HEAD_RULES[network]


def _tensor_names(rule: TensorRule, sizes: Sizes) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yields (index into `NAME_AXES`, name) of each tensor of a rule."""
    values = {"L": range(sizes.num_layers), "Q": QKV}
    name_axes = [a for a in rule.our_axes.split() if a in NAME_AXES]
    for index in itertools.product(*[range(len(values[a])) for a in name_axes]):
        yield (
            index,
            rule.theirs.format(**{a: values[a][i] for a, i in zip(name_axes, index, strict=True)}),
        )


def _axes_by_name_first(rule: TensorRule) -> list[str]:
    """Returns our axes in the order of the tensor's, after those that are part of its name."""
    return [a for a in rule.our_axes.split() if a in NAME_AXES] + list(rule.their_axes.replace(" ", ""))


def _shape(axes: str, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(lengths[letter] for letter in axis) for axis in axes.split())


def _drop_redundant(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    output, word_table = tensors.get(TIED_OUTPUT), tensors.get(WORD_TABLE)
    if output is not None and (word_table is None or not np.array_equal(output, word_table)):
        raise UserError(
            f"{TIED_OUTPUT} differs from {WORD_TABLE}; ELECTRA's generator has one table for both; "
            "import a model trained with tie_word_embeddings=true"
        )
    return {name: tensor for name, tensor in tensors.items() if name not in (*BUFFERS, TIED_OUTPUT)}


def _check_names_and_shapes(
    wanted: Mapping[str, tuple[int, ...]], got: Mapping[str, np.ndarray], subject: str, source: str
) -> None:
    """Raises UserError unless `got` has exactly the names and shapes `wanted`."""
    missing = [name for name in wanted if name not in got]
    unknown = [name for name in got if name not in wanted]
    misshapen = [
        f"{name} {list(got[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in got and tuple(got[name].shape) != shape
    ]
    found = [
        f"{what}: {', '.join(names[:MAX_NAMES_SHOWN])}"
        + (f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else "")
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
        )
        if names
    ]
    if found:
        raise UserError(f"{subject} do not fit {source}; {'; '.join(found)}")
