"""task.json: the task, labels and sizes that a fine-tuned model needs."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import Head


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """task.json: what is needed to run the model."""

    kind: str
    head: Head
    max_length: int
    model: ModelConfig
    special: SpecialIds
    lower_case: bool
    whole_tokens: tuple[str, ...]
    source: str  # of the encoder

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ModelSpec:
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
