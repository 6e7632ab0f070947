"""How a model's answers are read off its logits: the settings of its training that outlive it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa.windows import WindowConfig
from electramed_jax.finetune.task.task import SEQUENCE, SPAN, TOKEN, Head
from electramed_jax.finetune.text_classification import task
from electramed_jax.finetune.text_classification.tables import Columns

KINDS = {TOKEN: ("ner",), SEQUENCE: task.KINDS, SPAN: ("qa",)}  # of task, by that of their head
_DEFAULT = WindowConfig()


@dataclasses.dataclass(frozen=True)
class PostprocessConfig:
    """Attributes:
    kind: of the task, "ner", "relations", ...
    max_length: word pieces of a window.
    threshold: multilabel: a label is given where its probability is above this.
    columns: relations and the like: of the tables.
    stride, max_question: qa: see `spans.Windowing`.
    max_answer_pieces: qa.
    null_threshold: qa: no answer is given where [CLS] scores this much above the best one; None: one always is.
    """

    kind: str
    max_length: int
    threshold: float = 0.5
    columns: Columns = Columns()
    stride: int = _DEFAULT.stride
    max_question: int = _DEFAULT.max_question
    max_answer_pieces: int = nbest.MAX_PIECES
    null_threshold: float | None = None

    @property
    def windowing(self) -> WindowConfig:
        return WindowConfig(self.max_length, self.stride, self.max_question)


def of_run(kind: str, max_length: int, config: Mapping[str, Any], account: Mapping[str, Any]) -> PostprocessConfig:
    """Of a fine-tuning workdir, given what its config.json and data.json hold."""
    qa, of_text = config["qa"], config["text"]
    sizes = account["sizes"].values()
    return PostprocessConfig(
        kind,
        max_length,
        of_text["threshold"],
        Columns(of_text["text_column"], of_text["second_text_column"]),
        qa["stride"],
        qa["max_question"],
        qa["max_answer_pieces"],
        qa["null_threshold"] if any(of_split.get("impossible") for of_split in sizes) else None,
    )


def to_json(decoding: PostprocessConfig) -> dict[str, Any]:
    """For an export's config.json."""
    return dataclasses.asdict(decoding)


def from_json(values: Any, head: Head, max_positions: int, place: str) -> PostprocessConfig:
    """Of an exported folder; the usual values where another program wrote it, so that `values` is {}.

    Raises:
      UserError: values that are none of ours.
    """
    guessed = {"softmax": "classification", "sigmoid": "multilabel", "squared": "similarity"}[head.loss]
    kind = guessed if head.kind == SEQUENCE else KINDS[head.kind][0]
    usual = PostprocessConfig(kind, min(max_positions, _DEFAULT.max_length))
    try:
        columns = Columns(**values.get("columns", {}))
        found = dataclasses.replace(usual, **{**values, "columns": columns})
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{place}: its 'electramed' part is not one of ours ({error}); export the model again"
        ) from error
    if found.kind not in KINDS[head.kind]:
        raise UserError(f"{place}: a head for {head.kind}s, yet kind={found.kind!r}; export the model again")
    return found
