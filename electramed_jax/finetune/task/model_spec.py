"""task.json: task, head, sizes and special ids of a fine-tuned model."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import json_values
from electramed_jax.config.pretrain import ModelConfig, check_model
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

HEAD_KINDS = (TOKEN, SEQUENCE, SPAN)
MIN_LENGTH = 3  # of a window: [CLS], a word piece, [SEP]
_ADVICE = "restore it from a backup of the workdir"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The content of task.json: what is needed to run the model, apart from its parameters and vocabulary.

    Attributes:
      kind: value of config.task.kind.
      max_length: word pieces of a window.
      whole_tokens: vocabulary entries that the tokenizer never splits.
      source: where the encoder is from.
      words: named entities: value of config.ner.words; "" in a model of an earlier version, which was trained on the
        words of the file, and for other tasks.
    """

    kind: str
    head: Head
    max_length: int
    model: ModelConfig
    special: SpecialIds
    lower_case: bool
    whole_tokens: tuple[str, ...]
    source: str
    words: str = ""
    keep_accents: bool = False

    def to_json(self) -> dict[str, Any]:
        """Returns the content of task.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Any, path: str) -> ModelSpec:
        """Builds the spec from the content of task.json.

        Args:
          values: content of the file.
          path: of the file, for messages.

        Raises:
          UserError: a key is missing, unknown, or of the wrong type or value.
        """
        given = json_values.convert(values, dict[str, Any], path, advice=_ADVICE)
        model = config_io.from_saved(ModelConfig, given.get("model", {}), f"{path}: model")
        check_model(model)
        spec = json_values.convert(given | {"model": dataclasses.asdict(model)}, cls, path, advice=_ADVICE)
        head = spec.head
        if head.kind not in HEAD_KINDS or head.loss not in (SOFTMAX, SIGMOID, SQUARED) or not head.labels:
            raise UserError(
                f"{path}: head is {json_values.shorten(given['head'])}; wanted one of {', '.join(HEAD_KINDS)} with "
                f"labels and a loss; {_ADVICE}"
            )
        if not MIN_LENGTH <= spec.max_length <= model.max_positions:
            raise UserError(
                f"{path}: max_length={spec.max_length}; wanted {MIN_LENGTH} to {model.max_positions}, the positions of "
                f"the model; {_ADVICE}"
            )
        return spec
