"""Settings of a fine-tuning run, read as those of pre-training are (see `config/pretrain.py`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.tracking import trackers
from electramed_jax.config import recipes
from electramed_jax.config.fields import FRACTION, NON_NEGATIVE, POSITIVE, at_least, check_fields, one_of, setting
from electramed_jax.config.pretrain import MeshConfig, OptimizerConfig

if TYPE_CHECKING:
    from ml_collections import ConfigDict

SCRATCH = "scratch"
EXACT, GOOGLE = LAYER_DECAY_RULES = ("exact", "google")
PUNCTUATION, FILE = SEGMENTATIONS = ("punctuation", "file")
ARGMAX, VITERBI, CRF = DECODERS = ("argmax", "viterbi", "crf")
CLS, MENTIONS, PIECES = POOLINGS = ("cls", "mentions", "pieces")
POOLED_VECTORS = {CLS: 1, MENTIONS: 3, PIECES: 4}  # vectors of an example that the head reads, [CLS] included


@dataclasses.dataclass(frozen=True)
class FinetuneOptimizerConfig(OptimizerConfig):
    """Optimizer of pre-training, with warm-up as a fraction of the run and layer-wise learning rates.

    Defaults: google-research/electra configure_finetuning.py.
    """

    learning_rate: float = setting(1e-4, "peak learning rate, of the head", NON_NEGATIVE)
    warmup_steps: int = setting(0, "linear warm-up; 0: from warmup_fraction", NON_NEGATIVE, "steps")
    warmup_fraction: float = setting(0.1, "linear warm-up as a fraction of the run", FRACTION)
    layerwise_lr_decay: float = setting(
        0.8, "learning rate of a layer divided by that of the layer above it; 1: the same for all", POSITIVE
    )
    layerwise_lr_decay_rule: str = setting(
        EXACT,
        "exact: head 1, last layer d, first layer d^layers, embeddings d^(layers+1); "
        "google: all but the head by d again",
        one_of(*LAYER_DECAY_RULES),
    )
    freeze_layers: int = setting(
        0, "lowest layers of the encoder that are not trained, embeddings included; 0: all are trained", NON_NEGATIVE
    )
    bias_correction: bool = setting(
        False,
        "divide Adam's moments by 1 - beta^t, as torch's AdamW and transformers do; the published code of BERT and "
        "ELECTRA does not, which makes the first updates up to 6.5 times larger",
    )

    def get_warmup_steps(self, total_steps: int) -> float:
        """Returns the steps of warm-up in a run of `total_steps`."""
        return self.warmup_steps or self.warmup_fraction * total_steps


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """Kind and files of the task."""

    kind: str = setting(
        "ner", "kind of task", one_of("ner", "relations", "classification", "multilabel", "similarity", "qa")
    )
    data: str = setting("", "folder of the corpus, with train, dev and test files")
    train: str = setting("", 'training file; "": searched for in task.data')
    dev: str = setting("", 'development file; "": searched for in task.data')
    test: str = setting("", 'test file; "": searched for in task.data')
    dev_fraction: float = setting(
        0.0, "fraction of the training examples used as development set if there is no file of it", FRACTION
    )
    primary: str = setting(
        "",
        'score that chooses the best checkpoint on dev, such as macro_f1 or f1/LABEL; "": the usual one of the task',
    )
    strict_labels: bool = setting(
        False,
        "stop if dev or test has a label that no training example has; False: count such labels as missed, and warn",
    )
    max_seq_length: int = setting(
        128, "longest example, and length of the rows that examples are packed into", at_least(8), "word pieces"
    )
    corpus: str = setting(
        "", "name of a corpus of electramed corpora: sets kind, files and the settings of its recipe before all others"
    )


@dataclasses.dataclass(frozen=True)
class NerConfig:
    """Settings of named entity recognition."""

    scheme: str = setting(
        "detect",
        "tagging scheme that the files must have; detect: the one that fits them; any: not checked",
        one_of("detect", "any", "IOB2", "IOB1", "scibert", "BIOES", "BILOU"),
    )
    labels: str = setting(
        "",
        "names of tags that are numbers in the files, from 0, separated by commas: O,B-Disease,I-Disease; or "
        'O,Age,Sex if each number is a type; "": 0 is O, each other number is a type',
    )
    words: str = setting(
        PUNCTUATION,
        "words that are tagged in training; punctuation: split at white space and at each punctuation mark, as predict "
        "and Hugging Face's pipelines do; file: those of the file, as in most papers, although predict then splits "
        "words that the model has never seen split",
        one_of(*SEGMENTATIONS),
    )
    decoder: str = setting(
        ARGMAX,
        "argmax: the best tag of each word by itself; viterbi: the best sequence in which I- follows B- or I- of its "
        "type; crf: the same with trained transition scores, and the loss of whole sequences",
        one_of(*DECODERS),
    )


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Settings of relations, classification, multilabel and similarity."""

    placeholders: str = setting(
        "whole",
        "whole: @CHEMICAL$ and similar markers are tokens of the vocabulary; pieces: they are split into word pieces",
        one_of("whole", "pieces"),
    )
    pooling: str = setting(
        CLS,
        "vectors that the head reads; cls: [CLS], as in transformers; mentions: also those of the first and the last "
        "placeholder; pieces: also the means before, between and after the placeholders",
        one_of(*POOLINGS),
    )
    class_weight_power: float = setting(
        0.0,
        "relations, classification: the loss of a label counts (N / (K n))^power, with n of its N training examples "
        "and K labels; 0: all the same, 1: all labels as a whole the same",
        NON_NEGATIVE,
    )
    # the usual names: finetune/text_classification/label_names.py
    negative: str = setting("", 'relations: whole name of the label that means no relation; "": one of the usual names')
    # the usual names: finetune/text_classification/tables.py
    text_column: str = setting("", 'column of the text; "": one of the usual names')
    second_text_column: str = setting("", 'column of the second text of a pair; "": one of the usual names')
    label_column: str = setting("", 'column of the label; "": one of the usual names')
    document_column: str = setting(
        "",
        "multilabel: column with the document of each sentence; scores are then of documents, which have all labels of "
        "their sentences (BLUE, BLURB: index); an id ends at its first underscore",
    )
    label_separator: str = setting(",", "multilabel, in tables: separator between the labels of an example")
    threshold: float = setting(0.5, "multilabel: a label is predicted if its probability is above this", FRACTION)


@dataclasses.dataclass(frozen=True)
class QaStageConfig:
    """First training stage on other questions, such as SQuAD's before BioASQ's; skipped if `train` is empty."""

    train: str = setting("", "training file in SQuAD's format, or several separated by commas")
    dev: str = setting("", "development file in SQuAD's format")
    dev_fraction: float = setting(
        0.0, "fraction of the training questions used as development set if there is no file of it", FRACTION
    )
    # google-research/electra configure_finetuning.py, SQuAD
    epochs: float = setting(2.0, "passes over the questions", POSITIVE, "epochs")
    learning_rate: float = setting(0.0, "peak learning rate; 0: that of optimizer.learning_rate", NON_NEGATIVE)


@dataclasses.dataclass(frozen=True)
class QaConfig:
    """Settings of question answering.

    Files are named by config.task.train, dev and test: SQuAD's or BioASQ's format, several separated by commas.
    Windows have config.task.max_seq_length word pieces. Defaults: BERT's run_squad.py, which BioBERT and ELECTRAMed
    kept.
    """

    measures: str = setting(
        "squad",
        "squad: exact match and F1 of the answer of each passage; bioasq: best answers over the passages of a factoid "
        "question; bioasq_list: items of a list question",
        one_of("squad", "bioasq", "bioasq_list"),
    )
    list_threshold: float = setting(
        0.5, "bioasq_list: an answer is an item if its score is at least this fraction of the best one's", FRACTION
    )
    gold: str = setting("", "bioasq: golden files of the test batches, if the test files have no answers")
    doc_stride: int = setting(
        128, "distance from the start of one window to the start of the next", POSITIVE, "word pieces"
    )
    max_query_length: int = setting(64, "longest question; a longer one is truncated", POSITIVE, "word pieces")
    windows_without_answer: str = setting(
        "cls", "cls: train such windows to point at [CLS]; drop: leave them out of training", one_of("cls", "drop")
    )
    drop_mismatched: bool = setting(
        False, "leave out questions with an answer that is not at its offset; False: stop with an error"
    )
    null_threshold: float = setting(
        0.0, "SQuAD 2.0: no answer is predicted if the score of [CLS] exceeds the best answer's by more than this"
    )
    max_answer_length: int = setting(30, "longest predicted answer", POSITIVE, "word pieces")
    pretrain_stage: QaStageConfig = setting(QaStageConfig(), "first training stage on other questions")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Fine-tuning of one encoder on one corpus, with any number of seeds."""

    task: TaskConfig = setting(TaskConfig(), "kind and files of the task")
    ner: NerConfig = setting(NerConfig(), "named entity recognition")
    text: TextConfig = setting(TextConfig(), "relations, classification, multilabel and similarity")
    qa: QaConfig = setting(QaConfig(), "question answering")
    init: str = setting(
        "",
        "encoder to start from: a pre-training workdir, a Hugging Face ELECTRA folder, a fine-tuning workdir, or "
        "scratch for random parameters",
    )
    init_size_from: str = setting(
        "",
        "init=scratch: workdir or folder that gives sizes and vocabulary, or tiny, small, base or large",
    )
    vocab: str = setting("", "init=scratch with a named size: vocab.txt")
    lower_case: bool = setting(True, "init=scratch with a named size: lower-case the text")
    keep_accents: bool = setting(False, "init=scratch with a named size: keep the accents of lower-cased text")
    optimizer: FinetuneOptimizerConfig = setting(FinetuneOptimizerConfig(), "optimizer and learning rate schedule")
    mesh: MeshConfig = setting(MeshConfig(), "devices along each mesh axis")
    seed: int = setting(
        0, "seed of the head, the order of the examples and dropout; of the encoder too if init=scratch", NON_NEGATIVE
    )
    seeds: int = setting(1, "number of runs; run k has seed + k", POSITIVE, "runs")
    parallel_seeds: int = setting(
        1,
        "runs at the same time, in one process: each on its part of the devices, or all on a single device with "
        "memory for all",
        POSITIVE,
        "runs",
    )
    batch_size: int = setting(32, "examples per step, over all devices", POSITIVE, "examples")
    gradient_accumulation_steps: int = setting(
        1, "micro-batches that a batch is computed in, to save memory", POSITIVE, "micro-batches"
    )
    epochs: float = setting(3.0, "passes over the training examples", POSITIVE, "epochs")
    early_stopping: int = setting(
        0, "end a seed after this many evaluations without a better dev score; 0: train all epochs", NON_NEGATIVE
    )
    score_test: bool = setting(True, "score the test split at the end; False: leave it alone while settings are chosen")
    r_drop: float = setting(
        0.0,
        "R-Drop: weight of the divergence between the predictions of two dropout masks, at twice the cost; 0: one mask",
        NON_NEGATIVE,
    )
    dropout: float = setting(0.1, "dropout rate of the encoder and the head", FRACTION)
    attention_dropout: float = setting(0.1, "dropout rate of attention probabilities", FRACTION)
    compute_dtype: str = setting("float32", "dtype of matrix products and activations", one_of("float32", "bfloat16"))
    remat: str = setting(
        "none",
        "activations that the backward pass recomputes, layer by layer; full: all; dots: all except products with "
        "weights and the attention's result; none: nothing",
        one_of("none", "dots", "full"),
    )
    eval_every: int = setting(0, "interval of evaluation on the development set; 0: every epoch", NON_NEGATIVE, "steps")
    save_every: int = setting(0, "interval of checkpoints; 0: at every evaluation", NON_NEGATIVE, "steps")
    log_every: int = setting(50, "interval of logged metrics", POSITIVE, "steps")
    trackers: str = setting(
        "", "trackers in addition to TensorBoard: wandb or PACKAGE.MODULE:FUNCTION, several separated by commas"
    )
    preemption_grace_seconds: float = setting(
        30.0, "time that the platform leaves between SIGTERM and the end of the process", POSITIVE, "seconds"
    )


# Settings and groups that may change when a run is resumed: they affect how it runs, and how many seeds it has.
RUNTIME_SETTINGS = (
    "seeds", "parallel_seeds", "mesh", "log_every", "preemption_grace_seconds", "remat", "task.strict_labels",
    "trackers",
)  # fmt: skip


def from_flags(arguments: Sequence[str]) -> FinetuneConfig:
    """Reads the config of a fine-tuning run from command-line arguments and checks it.

    Raises:
      UserError: as `recipes.resolve_flags`, `config_io.from_flags` and `check`.
    """
    config = config_io.from_flags(
        FinetuneConfig, recipes.resolve_flags(arguments, recipes.FINETUNE), example="finetune_ner"
    )
    check(config)
    return config


def check(config: FinetuneConfig) -> None:
    """Raises UserError if a setting is out of range or contradicts another one."""
    check_fields(config)
    trackers.check_trackers(config.trackers)
    if not config.init:
        raise UserError(
            "no encoder to start from; add --config.init=DIR, a workdir of electramed pretrain or a Hugging Face "
            "ELECTRA folder, or --config.init=scratch"
        )
    if config.init == SCRATCH and not config.init_size_from:
        raise UserError(
            "config.init=scratch needs the sizes of the model; add --config.init_size_from=DIR, a workdir or folder "
            "with the sizes and vocabulary to use, or --config.init_size_from=small with --config.vocab=vocab.txt"
        )
    if config.qa.pretrain_stage.train and config.task.kind != "qa":
        raise UserError(f"config.qa.pretrain_stage.train is for config.task.kind=qa; got {config.task.kind}")
    _check_options(config)
    if config.parallel_seeds > 1 and config.trackers:
        raise UserError(
            f"config.parallel_seeds={config.parallel_seeds}: config.trackers={config.trackers} tracks one run at a "
            "time; use parallel_seeds=1, or no trackers"
        )
    if config.init != SCRATCH and (config.init_size_from or config.vocab):
        raise UserError(
            "config.init_size_from and config.vocab are only for config.init=scratch; got "
            f"config.init={config.init}, which has sizes and a vocabulary"
        )


def _check_options(config: FinetuneConfig) -> None:
    """Raises UserError for an option of another kind of task, or one that another option excludes."""
    kind, text = config.task.kind, config.text
    softmax = ("relations", "classification")
    for name, is_set, kinds in (
        ("ner.decoder", config.ner.decoder != ARGMAX, ("ner",)),
        ("text.pooling", text.pooling != CLS, softmax),
        ("text.class_weight_power", text.class_weight_power > 0, softmax),
        ("text.document_column", bool(text.document_column), ("multilabel",)),
        ("r_drop", config.r_drop > 0, ("ner", *softmax, "multilabel")),
    ):
        if is_set and kind not in kinds:
            raise UserError(f"config.{name} is for config.task.kind={' or '.join(kinds)}; got {kind}")
    if text.pooling != CLS and text.placeholders != "whole":
        raise UserError(
            f"config.text.pooling={text.pooling} finds the mentions by whole placeholders; add "
            "--config.text.placeholders=whole"
        )
    if config.r_drop and not (config.dropout or config.attention_dropout):
        raise UserError("config.r_drop compares two dropout masks; set config.dropout above 0")
    if config.r_drop and config.ner.decoder == CRF:
        raise UserError("config.r_drop has no form for config.ner.decoder=crf; use viterbi, or r_drop=0")


def defaults(kind: str) -> ConfigDict:
    """Returns the default settings of a kind of task as an editable `ConfigDict`, for config files."""
    from ml_collections import ConfigDict

    return ConfigDict(dataclasses.asdict(FinetuneConfig(task=TaskConfig(kind=kind))))
