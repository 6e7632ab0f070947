"""The settings of a fine-tuning run; read at the door as those of pre-training are (see electramed_jax/config.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.tracking import trackers
from electramed_jax.config.pretrain import MeshConfig, OptimizerConfig

SCRATCH = "scratch"
EXACT, GOOGLE = LAYER_DECAY_RULES = ("exact", "google")


@dataclasses.dataclass(frozen=True)
class FinetuneOptimizerConfig(OptimizerConfig):
    """Pre-training's optimiser, its warm-up as a fraction of the run, and lower layers learning more slowly."""

    learning_rate: float = 1e-4  # google-research/electra configure_finetuning.py
    warmup_steps: int = 0  # 0: from the fraction
    warmup_fraction: float = 0.1  # ... configure_finetuning.py
    # Rate of a layer over that of the layer above it; 1: all learn alike. ... configure_finetuning.py
    layerwise_lr_decay: float = 0.8
    # exact: head 1, last layer d, first layer d^layers, embeddings d^(layers+1); google: all but the head by d again
    layerwise_lr_decay_rule: str = EXACT

    def warmup(self, total_steps: int) -> float:
        return self.warmup_steps or self.warmup_fraction * total_steps


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Which corpus, and what is asked of it."""

    kind: str = "ner"  # ner | relations | classification | multilabel | similarity | qa
    data: str = ""  # the corpus's folder, with train, dev and test files
    train: str = ""  # a file; "": looked for in the folder
    dev: str = ""
    test: str = ""
    dev_fraction: float = 0.0  # of the training examples, held out where there is no dev file
    max_seq_length: int = 128  # word pieces of an example; also of the rows that examples are packed into


@dataclasses.dataclass(frozen=True)
class NerConfig:
    """Named entities."""

    # detect | any | IOB2 | IOB1 | scibert | BIOES | BILOU: the scheme the files have to be in
    scheme: str = "detect"


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Of relations, classification, multilabel and similarity."""

    # whole: @CHEMICAL$ and the like are entries of the vocabulary; pieces: cut into word pieces as any text
    placeholders: str = "whole"
    negative: str = "false"  # relations: a label with this in its name says that there is none
    text_column: str = ""  # "": one of the usual names, see finetune/tables.py
    second_text_column: str = ""
    label_column: str = ""
    label_separator: str = ","  # multilabel, in tables: between the labels of an example
    threshold: float = 0.5  # multilabel: a label is given where its probability is above this


@dataclasses.dataclass(frozen=True)
class QaStageConfig:
    """Questions to be trained on first, such as SQuAD's before BioASQ's; none where `train` is empty."""

    train: str = ""  # a file in SQuAD's form, or several with commas between
    dev: str = ""
    dev_fraction: float = 0.0  # of the training questions, held out where there is no dev file
    epochs: float = 2.0  # google-research/electra configure_finetuning.py, SQuAD
    learning_rate: float = 0.0  # 0: config.optimizer's


@dataclasses.dataclass(frozen=True)
class QaConfig:
    """Of qa. Files are named in config.task.train, dev and test: SQuAD's form or BioASQ's, several with commas between.

    Windows are of config.task.max_seq_length word pieces. The numbers are those of BERT's run_squad.py, which BioBERT and
    ELECTRAMed kept.
    """

    # squad: exact match and F1 of each passage's answer; bioasq: the best answers over a question's passages
    measures: str = "squad"
    gold: str = ""  # bioasq: the golden files of the test batches, where the test files lack the answers
    doc_stride: int = 128  # word pieces from the start of one window to the start of the next
    max_query_length: int = 64  # word pieces; a longer question loses its end
    windows_without_answer: str = "cls"  # cls: trained to point at [CLS]; drop: not trained on
    drop_mismatched: bool = False  # leave out questions whose answer is not at its offset, instead of stopping
    null_threshold: float = 0.0  # SQuAD 2.0: no answer is given where [CLS] scores this much above the best one
    max_answer_length: int = 30
    pretrain_stage: QaStageConfig = QaStageConfig()


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """One corpus, one encoder, any number of seeds."""

    task: TaskConfig = TaskConfig()
    ner: NerConfig = NerConfig()
    text: TextConfig = TextConfig()
    qa: QaConfig = QaConfig()
    # a pre-training workdir, a Hugging Face ELECTRA folder, a fine-tuning workdir, or "scratch"
    init: str = ""
    # of a model from scratch: a workdir or folder whose sizes and vocabulary it takes, or tiny | small | base | large
    init_size_from: str = ""
    vocab: str = ""  # vocab.txt of a model from scratch that is like a named size
    lower_case: bool = True  # ... whether its text is lower-cased
    optimizer: FinetuneOptimizerConfig = FinetuneOptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    seed: int = 0  # of the head, the order of the examples and dropout; of the encoder, too, from scratch
    seeds: int = 1  # runs, with seed, seed + 1, ...
    batch_size: int = 32  # examples a step, over all devices
    epochs: float = 3.0
    dropout: float = 0.1  # of the encoder and the head
    attention_dropout: float = 0.1
    compute_dtype: str = "float32"  # float32 | bfloat16
    remat: str = "none"  # none | dots | full: what the backward pass recomputes
    eval_every: int = 0  # steps between measurements on dev; 0: after every epoch
    save_every: int = 0  # steps between checkpoints; 0: with every measurement
    log_every: int = 50
    trackers: str = ""  # beside TensorBoard, as of pre-training
    preemption_grace_seconds: float = 30.0  # that the platform leaves between SIGTERM and the end


CHOICES = {
    "task.kind": ("ner", "relations", "classification", "multilabel", "similarity", "qa"),
    "ner.scheme": ("detect", "any", "IOB2", "IOB1", "scibert", "BIOES", "BILOU"),
    "text.placeholders": ("whole", "pieces"),
    "qa.measures": ("squad", "bioasq"),
    "qa.windows_without_answer": ("cls", "drop"),
    "optimizer.kind": ("adam", "lamb"),
    "optimizer.layerwise_lr_decay_rule": LAYER_DECAY_RULES,
    "compute_dtype": ("float32", "bfloat16"),
    "remat": ("none", "dots", "full"),
}
POSITIVE = (
    "task.max_seq_length optimizer.epsilon optimizer.clip_norm optimizer.layerwise_lr_decay mesh.fsdp mesh.tensor seeds "
    "batch_size epochs log_every preemption_grace_seconds qa.doc_stride qa.max_query_length qa.max_answer_length qa.pretrain_stage.epochs"
)
FRACTIONS = (
    "optimizer.beta1 optimizer.beta2 optimizer.warmup_fraction task.dev_fraction dropout attention_dropout "
    "text.threshold qa.pretrain_stage.dev_fraction"
)
NOT_NEGATIVE = (
    "optimizer.learning_rate optimizer.weight_decay optimizer.warmup_steps optimizer.decay_power seed eval_every "
    "save_every qa.pretrain_stage.learning_rate"
)
# What may change when a run is started again: how it is run, and of how many seeds it is one.
RUNTIME_SETTINGS = ("seeds", "mesh", "log_every", "preemption_grace_seconds", "remat", "trackers")


def from_flags(arguments: Sequence[str]) -> FinetuneConfig:
    """A fine-tuning run's settings, checked; see `settings.from_flags`."""
    config = config_io.from_flags(FinetuneConfig, arguments, example="configs/finetune_ner.py")
    check(config)
    return config


def check(config: FinetuneConfig) -> None:
    """Raises UserError where a setting is out of range or two contradict each other."""
    values = config_io.flatten(dataclasses.asdict(config))
    for name, choices in CHOICES.items():
        config_io.require(name, values[name], values[name] in choices, "one of " + ", ".join(choices))
    for name in POSITIVE.split():
        config_io.require(name, values[name], values[name] > 0, "a number above 0")
    for name in FRACTIONS.split():
        config_io.require(name, values[name], 0 <= values[name] < 1, "a number from 0 up to, not including, 1")
    for name in NOT_NEGATIVE.split():
        config_io.require(name, values[name], values[name] >= 0, "a number of at least 0")
    config_io.require("mesh.data", config.mesh.data, config.mesh.data == -1 or config.mesh.data > 0, "-1 or above 0")
    config_io.require("task.max_seq_length", config.task.max_seq_length, config.task.max_seq_length >= 8, "at least 8")
    trackers.check_trackers(config.trackers)
    if not config.init:
        raise UserError(
            "no encoder to start from; add --config.init=DIR, a workdir of electramed pretrain or a Hugging Face "
            "ELECTRA folder, or --config.init=scratch"
        )
    if config.init == SCRATCH and not config.init_size_from:
        raise UserError(
            "config.init=scratch needs to know a size; add --config.init_size_from=DIR, a workdir or folder whose sizes and "
            "vocabulary are taken, or --config.init_size_from=small with --config.vocab=vocab.txt"
        )
    if config.qa.pretrain_stage.train and config.task.kind != "qa":
        raise UserError(f"config.qa.pretrain_stage.train is for config.task.kind=qa; got {config.task.kind}")
    if config.init != SCRATCH and (config.init_size_from or config.vocab):
        raise UserError(
            f"config.init_size_from and config.vocab are for config.init=scratch; {config.init} brings its own"
        )


def defaults(kind: str):
    """An editable `ConfigDict` for a kind of task, for config files."""
    from ml_collections import ConfigDict

    return ConfigDict(dataclasses.asdict(FinetuneConfig(task=TaskConfig(kind=kind))))
