"""Builds the task of a config."""

from __future__ import annotations

from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune.ner.task import NerTask
from electramed_jax.finetune.qa.task import QaTask
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Task
from electramed_jax.finetune.text_classification.task import TextClassificationTask


def make_task(config: FinetuneConfig, encoder: InitEncoder) -> tuple[Task, InitEncoder, ModelSpec]:
    """Reads the files of a config and returns the task, the encoder and the spec of the model.

    The encoder is the given one, or one with the placeholders of the task added to its vocabulary.

    Raises:
      UserError: a file cannot be used; names file and line.
    """
    task: Task
    if config.task.kind == "ner":
        task = NerTask.from_config(config, encoder)
    elif config.task.kind == "qa":
        task = QaTask.from_config(config, encoder)
    else:
        task, encoder = TextClassificationTask.from_config(config, encoder)
    spec = ModelSpec(
        kind=task.kind,
        head=task.head,
        max_length=task.max_length,
        model=encoder.model,
        special=task.tokenizer.special,
        lower_case=encoder.lower_case,
        keep_accents=encoder.keep_accents,
        whole_tokens=task.tokenizer.never_split,
        source=encoder.source,
        words=config.ner.words if isinstance(task, NerTask) else "",
    )
    return task, encoder, spec
