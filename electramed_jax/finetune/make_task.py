"""From settings to a task with its examples."""

from __future__ import annotations

from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import task as ner
from electramed_jax.finetune.qa import splits
from electramed_jax.finetune.qa import task as qa
from electramed_jax.finetune.qa.windows import WindowConfig
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Task
from electramed_jax.finetune.text_classification import placeholders, tables
from electramed_jax.finetune.text_classification import task as text
from electramed_jax.finetune.text_classification.tables import Columns


def make(config: FinetuneConfig, start: InitEncoder) -> tuple[Task, InitEncoder, ModelSpec]:
    """The task of a config in the words of an encoder's vocabulary; the encoder, which may have learnt new words; and
    what describes the model that comes of both.

    Raises:
      UserError: names file and line of what cannot be used.
    """
    chosen = {"train": config.task.train, "dev": config.task.dev, "test": config.task.test}
    whole: tuple[str, ...] = ()
    if config.task.kind == "ner":
        paths = split_files.find(config.task.data, chosen, ner.ENDINGS)
        tokenizer = Tokenizer.from_tokens(start.tokens, start.lower_case)
        task: Task = ner.NerTask(
            paths,
            tokenizer,
            max_length=config.task.max_seq_length,
            scheme=config.ner.scheme,
            dev_fraction=config.task.dev_fraction,
        )
    elif config.task.kind in text.KINDS:
        paths = split_files.find(config.task.data, chosen, tables.ENDINGS)
        columns = Columns(config.text.text_column, config.text.second_text_column, config.text.label_column)
        corpus = text.read(paths, columns, config.task.dev_fraction)
        if config.text.placeholders == "whole":
            whole = tuple(corpus.placeholders())
            start = placeholders.add(start, whole)
        tokenizer = Tokenizer.from_tokens(start.tokens, start.lower_case, whole)
        task = text.TextClassificationTask(
            config.task.kind,
            corpus,
            tokenizer,
            max_length=config.task.max_seq_length,
            negative=config.text.negative,
            separator=config.text.label_separator,
            threshold=config.text.threshold,
        )
    else:
        paths = split_files.find(config.task.data, chosen, qa.ENDINGS)
        tokenizer = Tokenizer.from_tokens(start.tokens, start.lower_case)
        task = qa.QaTask(
            {split: splits.paths(listed) for split, listed in paths.items()},
            tokenizer,
            windowing=WindowConfig(config.task.max_seq_length, config.qa.doc_stride, config.qa.max_query_length),
            measures=config.qa.measures,
            gold=splits.paths(config.qa.gold),
            dev_fraction=config.task.dev_fraction,
            windows_without_answer=config.qa.windows_without_answer,
            drop_mismatched=config.qa.drop_mismatched,
            null_threshold=config.qa.null_threshold,
            max_answer_length=config.qa.max_answer_length,
        )
    described = ModelSpec(
        kind=task.kind,
        head=task.head,
        max_length=task.max_length,
        model=start.model,
        special=tokenizer.special,
        lower_case=start.lower_case,
        whole_tokens=whole,
        source=start.source,
    )
    return task, start, described
