"""task.json: task, head, sizes and special ids of a fine-tuned model."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import Head


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

    def to_json(self) -> dict[str, Any]:
        """Returns the content of task.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
        """Builds the spec from the content of task.json."""
        head = values["head"]
        return cls(
            **values
            | {
                "head": Head(head["kind"], tuple(head["labels"]), head["loss"]),
                "model": config_io.from_saved(ModelConfig, values["model"], "model"),
                "special": SpecialIds(**values["special"]),
                "whole_tokens": tuple(values["whole_tokens"]),
            }
        )
