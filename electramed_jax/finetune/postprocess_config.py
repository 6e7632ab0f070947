"""Settings of a run that postprocessing needs: how predictions are computed from logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import json_values
from electramed_jax.config.finetune import ARGMAX, CRF, DECODERS
from electramed_jax.finetune.qa import bioasq, nbest
from electramed_jax.finetune.qa.splits import BIOASQ_LIST
from electramed_jax.finetune.qa.windows import WindowConfig
from electramed_jax.finetune.task.model_spec import MIN_LENGTH
from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head
from electramed_jax.finetune.text_classification.tables import Columns
from electramed_jax.finetune.text_classification.task import CLASSIFICATION, KINDS, MULTILABEL, SIMILARITY
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

TASK_KINDS = {TOKEN: ("ner",), SEQUENCE: KINDS, SPAN: ("qa",)}  # kinds of tasks by the kind of their head
_DEFAULT_KINDS = {SOFTMAX: CLASSIFICATION, SIGMOID: MULTILABEL, SQUARED: SIMILARITY}  # of a "sequence" head, by loss
_DEFAULT = WindowConfig()
_DEFAULT_COLUMNS = Columns()
# Keys of exported folders that differ from the names of the fields.
_JSON_KEYS = {
    "max_seq_length": "max_length",
    "doc_stride": "stride",
    "max_query_length": "max_question",
    "max_answer_length": "max_answer_pieces",
}


@dataclasses.dataclass(frozen=True)
class PostprocessConfig:
    """How predictions are computed from logits.

    Attributes:
      kind: kind of the task: "ner", "relations", ...
      max_seq_length: word pieces of a window.
      threshold: multilabel: a label is predicted if its probability is above this.
      columns: text classification: columns of the tables.
      doc_stride, max_query_length: qa: see `qa.windows.WindowConfig`.
      max_answer_length: qa: maximum word pieces of an answer.
      null_threshold: qa: no answer is predicted if [CLS] scores this much above the best answer; None: never.
      words: ner: the words that the model was trained on, see `ner.words`; "": not recorded.
      question_kind: qa: type of the questions of BioASQ that are answered, "factoid" or "list".
      list_threshold: qa: see `bioasq.choose_items`.
      decoder: ner: value of config.ner.decoder.
      transitions: ner: trained transition scores of decoder "crf", see `viterbi.best_path`; () for other decoders.
    """

    kind: str
    max_seq_length: int
    threshold: float = 0.5
    columns: Columns = _DEFAULT_COLUMNS
    doc_stride: int = _DEFAULT.doc_stride
    max_query_length: int = _DEFAULT.max_query_length
    max_answer_length: int = nbest.MAX_ANSWER_LENGTH
    null_threshold: float | None = None
    words: str = ""
    question_kind: str = bioasq.FACTOID
    list_threshold: float = 0.5
    decoder: str = ARGMAX
    transitions: tuple[tuple[float, ...], ...] = ()

    @property
    def windowing(self) -> WindowConfig:
        """Windows of question answering. Raises UserError for settings of another task that leave no room for them."""
        return WindowConfig(self.max_seq_length, self.doc_stride, self.max_query_length)


def from_run(
    kind: str,
    max_seq_length: int,
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    words: str = "",
    decoder: str = ARGMAX,
    transitions: Sequence[Sequence[float]] = (),
) -> PostprocessConfig:
    """Builds the config of a fine-tuning workdir from the contents of its config.json and data.json.

    Args:
      words, decoder, transitions: see `PostprocessConfig`.
    """
    qa, text = settings["qa"], settings["text"]
    has_impossible = any(sizes.get("impossible") for sizes in data["sizes"].values())
    return PostprocessConfig(
        kind,
        max_seq_length,
        text["threshold"],
        Columns(text["text_column"], text["second_text_column"]),
        qa["doc_stride"],
        qa["max_query_length"],
        qa["max_answer_length"],
        qa["null_threshold"] if has_impossible else None,
        words,
        bioasq.LIST if qa["measures"] == BIOASQ_LIST else bioasq.FACTOID,
        qa["list_threshold"],
        decoder,
        tuple(tuple(row) for row in transitions),
    )


def to_json(config: PostprocessConfig) -> dict[str, Any]:
    """Returns the part of an exported folder's config.json."""
    return {_JSON_KEYS.get(name, name): value for name, value in dataclasses.asdict(config).items()}


def from_json(values: Any, head: Head, max_positions: int, place: str) -> PostprocessConfig:
    """Builds the config of an exported folder; defaults if another program wrote the folder and `values` is {}.

    Raises:
      UserError: `values` is not what `to_json` returns.
    """
    kind = _DEFAULT_KINDS[head.loss] if head.kind == SEQUENCE else TASK_KINDS[head.kind][0]
    default = PostprocessConfig(kind, min(max_positions, _DEFAULT.max_seq_length))
    advice = "export the model again"
    given = json_values.convert(values, dict[str, Any], f"{place}: its 'electramed' part", advice=advice)
    field_names = {key: name for name, key in _JSON_KEYS.items()}
    given = {field_names.get(key, key): value for key, value in given.items()}
    complete = dataclasses.asdict(default) | {"transitions": []} | given
    config = json_values.convert(complete, PostprocessConfig, f"{place}: its 'electramed' part", advice=advice)
    if config.kind not in TASK_KINDS[head.kind]:
        raise UserError(f"{place}: a {head.kind} head with kind={config.kind!r}; export the model again")
    sizes = [len(row) for row in config.transitions]
    if config.decoder not in DECODERS or sizes != ([head.size] * (head.size + 1) if config.decoder == CRF else []):
        raise UserError(
            f"{place}: decoder={config.decoder!r} with {len(sizes)} rows of transition scores; wanted one of "
            f"{', '.join(DECODERS)}, with rows only for {CRF}; export the model again"
        )
    if not MIN_LENGTH <= config.max_seq_length <= max_positions:
        raise UserError(
            f"{place}: max_length={config.max_seq_length}; wanted {MIN_LENGTH} to {max_positions}, the positions of "
            "the model; export the model again"
        )
    return config
