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
# Keys of exported folders that are older than the fields' names.
_JSON_KEYS = {
    "max_seq_length": "max_length",
    "doc_stride": "stride",
    "max_query_length": "max_question",
    "max_answer_length": "max_answer_pieces",
}


@dataclasses.dataclass(frozen=True)
class PostprocessConfig:
    """Attributes:
    kind: of the task, "ner", "relations", ...
    max_seq_length: word pieces of a window.
    threshold: multilabel: a label is given where its probability is above this.
    columns: relations and the like: of the tables.
    doc_stride, max_query_length: qa: see `qa.windows.WindowConfig`.
    max_answer_length: qa.
    null_threshold: qa: no answer is given where [CLS] scores this much above the best one; None: one always is.
    """

    kind: str
    max_seq_length: int
    threshold: float = 0.5
    columns: Columns = Columns()
    doc_stride: int = _DEFAULT.doc_stride
    max_query_length: int = _DEFAULT.max_query_length
    max_answer_length: int = nbest.MAX_PIECES
    null_threshold: float | None = None

    @property
    def windowing(self) -> WindowConfig:
        return WindowConfig(self.max_seq_length, self.doc_stride, self.max_query_length)


def of_run(kind: str, max_seq_length: int, config: Mapping[str, Any], account: Mapping[str, Any]) -> PostprocessConfig:
    """Of a fine-tuning workdir, given what its config.json and data.json hold."""
    qa, of_text = config["qa"], config["text"]
    sizes = account["sizes"].values()
    return PostprocessConfig(
        kind,
        max_seq_length,
        of_text["threshold"],
        Columns(of_text["text_column"], of_text["second_text_column"]),
        qa["doc_stride"],
        qa["max_query_length"],
        qa["max_answer_length"],
        qa["null_threshold"] if any(of_split.get("impossible") for of_split in sizes) else None,
    )


def to_json(decoding: PostprocessConfig) -> dict[str, Any]:
    """For an export's config.json."""
    return {_JSON_KEYS.get(name, name): value for name, value in dataclasses.asdict(decoding).items()}


def from_json(values: Any, head: Head, max_positions: int, place: str) -> PostprocessConfig:
    """Of an exported folder; the usual values where another program wrote it, so that `values` is {}.

    Raises:
      UserError: values that are none of ours.
    """
    guessed = {"softmax": "classification", "sigmoid": "multilabel", "squared": "similarity"}[head.loss]
    kind = guessed if head.kind == SEQUENCE else KINDS[head.kind][0]
    usual = PostprocessConfig(kind, min(max_positions, _DEFAULT.max_seq_length))
    try:
        fields = {key: name for name, key in _JSON_KEYS.items()}
        given = {fields.get(key, key): value for key, value in values.items()}
        found = dataclasses.replace(usual, **{**given, "columns": Columns(**given.get("columns", {}))})
    except (AttributeError, TypeError) as error:
        raise UserError(
            f"{place}: its 'electramed' part is not one of ours ({error}); export the model again"
        ) from error
    if found.kind not in KINDS[head.kind]:
        raise UserError(f"{place}: a head for {head.kind}s, yet kind={found.kind!r}; export the model again")
    return found
