"""One network's leaves and Hugging Face's tensors: a table read in both directions.

A line of the table says: our leaf and its axes <-> their tensor and its axes. The axes are the
transform. One letter is one axis, `NH` is two axes merged into one, and an axis of ours that theirs
lacks (`L`, `Q`) is spread over names: `{L}` becomes the layer's number and `{Q}` query, key or
value.

    V  vocabulary (padded in ours)  D  encoder width     N  attention heads  L  layers
    P  positions                    O  D, once more      H  size of a head   Q  query, key, value
    S  token types                  F  feed-forward      E  embedding size   1  one
                                                         K  labels

Their names: transformers 4.46 and 5.23, models/electra/modeling_electra.py, classes
ElectraForPreTraining (our discriminator), ElectraForMaskedLM (our generator), and those of
fine-tuned models: ElectraForTokenClassification ("token"), ElectraForSequenceClassification
("sequence"), ElectraForQuestionAnswering ("span"). ElectraModel is an "encoder" by itself. torch's
Linear holds [out, in], our kernels [in, out].
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
ENCODER, TOKEN, SEQUENCE, SPAN = "encoder", "token", "sequence", "span"
TOKEN_TYPES = 2
NAMES_SHOWN = 6  # of leaves or tensors, in one error


class TensorRule(NamedTuple):
    """Our leaf, its axes, their tensor, its axes (separated by blanks)."""

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
PROJECTION_RULES = (  # exists only where embeddings and encoder differ in width
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
        # Its matrix is the word table: generator_lm_head.weight is tied there and is not stored.
        TensorRule("head/output_bias", "V", "generator_lm_head.bias", "V"),
    ),
    ENCODER: (),
    TOKEN: (
        TensorRule("head/logit/kernel", "D K", "classifier.weight", "K D"),
        TensorRule("head/logit/bias", "K", "classifier.bias", "K"),
    ),
    SEQUENCE: (
        TensorRule("head/dense/kernel", "D O", "classifier.dense.weight", "O D"),
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
NAME_AXES = "LQ"  # axes of ours that are part of their names
WORD_TABLE = "electra.embeddings.word_embeddings.weight"
TIED_OUTPUT = "generator_lm_head.weight"
VOCABULARY_TENSORS = (WORD_TABLE, TIED_OUTPUT, "generator_lm_head.bias")  # one row a token
BUFFERS = (
    "electra.embeddings.position_ids",
    "electra.embeddings.token_type_ids",
)  # saved by old versions


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of one network by itself: embeddings, encoder and head."""

    vocab_size: int
    max_positions: int
    embedding_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_labels: int = 1  # of a fine-tuned head

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
        """Returns a pair whose discriminator has these sizes; the settings of its generator are the defaults."""
        sizes = dataclasses.asdict(self)
        del sizes["num_labels"]
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
            "N": self.num_heads,
            "H": self.hidden_size // self.num_heads,
            "F": self.intermediate_size,
            "L": self.num_layers,
            "Q": len(QKV),
            "K": self.num_labels,
            "1": 1,
        }


def to_hf_tensors(leaves: Mapping[str, np.ndarray], sizes: Sizes, network: str) -> dict[str, np.ndarray]:
    """Hugging Face's tensors of one network: float32, contiguous, without the vocabulary's padding.

    Args:
      leaves: that network's leaves by name, as `networks.split` returns them.
      sizes: of that network.
      network: a key of `HEAD_RULES`.

    Raises:
      UserError: a leaf is missing, unknown, or not of the shape the sizes ask for.
    """
    lines, ours, theirs = (
        tensor_rules(network, sizes),
        sizes.axis_lengths(padded=True),
        sizes.axis_lengths(padded=False),
    )
    wanted = {line.ours: _shape(line.our_axes, ours) for line in lines}
    _check_names_and_shapes(wanted, leaves, f"the {network}'s parameters", "its configuration")
    tensors = {}
    for line in lines:
        axes = line.our_axes.split()
        unpadded = np.asarray(leaves[line.ours], np.float32)[tuple(slice(theirs[a]) for a in axes)]
        spread_first = unpadded.transpose([axes.index(a) for a in _spread_first(line)])
        for index, name in _tensor_names(line, sizes):
            # Contiguous: safetensors stores a transposed view in memory order, silently wrong.
            tensors[name] = np.ascontiguousarray(spread_first[index].reshape(_shape(line.their_axes, theirs)))
    return tensors


def from_hf_tensors(tensors: Mapping[str, np.ndarray], sizes: Sizes, network: str) -> dict[str, np.ndarray]:
    """The inverse of `to_hf_tensors`: one network's leaves, float32, the vocabulary padded with zeros.

    Buffers that old versions saved are passed over, and so is the generator's output matrix where
    it is the word table.

    Raises:
      UserError: a tensor is missing, unknown, or not of the shape the sizes ask for; or the
        generator's output matrix is its own, which ELECTRA's generator does not have.
    """
    lines, ours, theirs = (
        tensor_rules(network, sizes),
        sizes.axis_lengths(padded=True),
        sizes.axis_lengths(padded=False),
    )
    wanted = {name: _shape(line.their_axes, theirs) for line in lines for _, name in _tensor_names(line, sizes)}
    _check_names_and_shapes(wanted, _drop_redundant(tensors), f"the {network}'s tensors", "its config.json")
    leaves = {}
    for line in lines:
        axes, order = line.our_axes.split(), _spread_first(line)
        stacked = np.stack([np.asarray(tensors[name], np.float32) for _, name in _tensor_names(line, sizes)])
        unpadded = stacked.reshape([theirs[a] for a in order]).transpose([order.index(a) for a in axes])
        leaves[line.ours] = np.pad(unpadded, [(0, ours[a] - theirs[a]) for a in axes])
    return leaves


def tensor_rules(network: str, sizes: Sizes) -> tuple[TensorRule, ...]:
    """The lines that hold for a network of these sizes."""
    projection = PROJECTION_RULES if sizes.embedding_size != sizes.hidden_size else ()
    return EMBEDDING_RULES + projection + LAYER_RULES + HEAD_RULES[network]


def _tensor_names(line: TensorRule, sizes: Sizes) -> Iterator[tuple[tuple[int, ...], str]]:
    """(index into the spread axes, their name) for each tensor of a line."""
    values = {"L": range(sizes.num_layers), "Q": QKV}
    spread = [a for a in line.our_axes.split() if a in NAME_AXES]
    for index in itertools.product(*[range(len(values[a])) for a in spread]):
        yield (
            index,
            line.theirs.format(**{a: values[a][i] for a, i in zip(spread, index, strict=True)}),
        )


def _spread_first(line: TensorRule) -> list[str]:
    """Our axes in the order of theirs, after those that are part of the name."""
    return [a for a in line.our_axes.split() if a in NAME_AXES] + list(line.their_axes.replace(" ", ""))


def _shape(axes: str, lengths: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(math.prod(lengths[letter] for letter in axis) for axis in axes.split())


def _drop_redundant(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    output = tensors.get(TIED_OUTPUT)
    if output is not None and not np.array_equal(output, tensors.get(WORD_TABLE)):
        raise UserError(
            f"{TIED_OUTPUT} differs from {WORD_TABLE}; ELECTRA's generator has one table for both: "
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
        f"{what}: {', '.join(names[:NAMES_SHOWN])}"
        + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
        for what, names in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", misshapen),
        )
        if names
    ]
    if found:
        raise UserError(f"{subject} do not fit {source}; {'; '.join(found)}")
