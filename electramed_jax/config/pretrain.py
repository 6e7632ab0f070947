"""Every setting of a run: frozen dataclasses, read from a config file once, at the door.

A config file returns an `ml_collections.ConfigDict` made by `preset(...)`; `from_flags` applies the command line's
`--config.a.b=c` to it and freezes the result. A setting of 0 that says "0: from the dataset" is filled in by
`resolve`, which also checks everything that can be checked without a device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.rounding import round_up
from electramed_jax.common.tracking import trackers
from electramed_jax.config.special_tokens import SpecialIds

VOCAB_MULTIPLE = 128  # rows of the embedding table are padded to a whole number of TPU lanes


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of one transformer encoder."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and numerics of the generator-discriminator pair."""

    vocab_size: int = 0  # 0: from the dataset
    max_positions: int = 512
    embedding_size: int = 128
    hidden_size: int = 256
    num_layers: int = 12
    num_heads: int = 4
    intermediate_size: int = 1024
    generator_hidden_size: int = 64
    generator_num_layers: int = 12
    generator_num_heads: int = 1
    generator_intermediate_size: int = 256
    # embeddings | none | all | gradient_disentangled: what the generator shares with the discriminator
    tying: str = "embeddings"
    dropout: float = 0.1  # of embeddings and sub-layer outputs; google-research/electra modeling.py:46
    attention_dropout: float = 0.1  # of attention probabilities; google-research/electra modeling.py:47
    # Standard deviation, before truncation, of dense kernels. 0.02 is ELECTRA's for every size; it starves
    # narrow models,
    # where 1/sqrt(width) is larger: at width 128, 0.08 lets the discriminator leave its plateau several times sooner.
    kernel_stddev: float = 0.02
    compute_dtype: str = "float32"  # float32 | bfloat16; parameters and losses are float32 either way
    remat: str = "full"  # full | dots | none: what the backward pass recomputes, layer by layer
    # False: the compiler sees every layer, not one for all: faster steps on TPUs and GPUs for a longer compilation
    scan_layers: bool = True
    # none: plain XLA; auto: hand-written kernels on TPUs (not yet run on a chip) and GPUs, where the sizes suit them
    kernels: str = "none"

    @property
    def padded_vocab_size(self) -> int:
        return round_up(self.vocab_size, VOCAB_MULTIPLE)

    @property
    def discriminator(self) -> EncoderConfig:
        return EncoderConfig(self.num_layers, self.hidden_size, self.num_heads, self.intermediate_size)

    @property
    def generator(self) -> EncoderConfig:
        if self.tying == "all":
            return self.discriminator
        return EncoderConfig(
            self.generator_num_layers,
            self.generator_hidden_size,
            self.generator_num_heads,
            self.generator_intermediate_size,
        )

    @property
    def generator_embedding_size(self) -> int:
        """An untied generator has tables of its own width (google-research/electra modeling.py:187)."""
        return self.generator_hidden_size if self.tying == "none" else self.embedding_size


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Replaced-token detection and its relatives; numbers from google-research/electra configure_pretraining.py."""

    # electra: sampled replacements; uniform: replacements drawn uniformly; mlm: masked language model only
    kind: str = "electra"
    mask_probability: float = 0.15
    mask_token_share: float = 0.85  # of the chosen positions become [MASK]; the others keep their token
    generator_weight: float = 1.0
    discriminator_weight: float = 50.0
    temperature: float = 1.0
    disallow_correct: bool = False  # never sample the original token


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam or LAMB, decoupled decay, linear warm-up times polynomial decay."""

    # adam: ELECTRA's, without bias correction; lamb: bias-corrected, each matrix's step scaled to its own norm,
    # for batches of many thousand rows (You et al. 2020)
    kind: str = "adam"
    learning_rate: float = 5e-4
    warmup_steps: int = 10_000
    decay_power: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float = 1.0

    def warmup(self, total_steps: int) -> float:
        """Steps of warm-up in a run of `total_steps`."""
        return self.warmup_steps


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 means all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which packed dataset or datasets, and in which order."""

    # a packed folder, or several with commas between: packed/abstracts,packed/full_text
    directory: str = ""
    # of several folders, in their order: 3,1 feeds three rows of the first to one of the second; "": as they have rows
    weights: str = ""
    seed: int = 0  # of the row order
    # a local folder that keeps what is read of remote shards, for the next epoch or run; "": nothing is kept
    cache_directory: str = ""
    cache_gigabytes: float = 50.0  # on disk, at most
    max_seq_length: int = 0  # T, tokens a row; 0: from the dataset
    special: SpecialIds = SpecialIds()  # replaced by the dataset's


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run."""

    model: ModelConfig = ModelConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    data: DataConfig = DataConfig()
    seed: int = 0  # of initial parameters, masking, sampling and dropout
    batch_size: int = 128  # rows a step, over all devices
    gradient_accumulation_steps: int = 1  # parts the batch is run in, one after the other: less memory, the same step
    total_steps: int = 1_000_000
    log_every: int = 100
    eval_every: int = 5_000
    eval_batches: int = 64  # validation batches an evaluation, at most
    save_every: int = 5_000
    max_to_keep: int = 3  # the newest ones
    keep_period: int = 0  # steps; those of its multiples are kept for good; 0: none
    preemption_grace_seconds: float = 30.0  # that the platform leaves between SIGTERM and the end
    trackers: str = ""  # beside TensorBoard: wandb, or PACKAGE.MODULE:FUNCTION; several with commas between
    init: str = ""  # hf:DIR, a Hugging Face ELECTRA folder, or its parent with discriminator/ and generator/

    @property
    def max_predictions(self) -> int:
        """M, the masked positions a row has room for.

        `int((p + 0.005) T)` is google-research/electra's; it falls short of `round(p T)` for a few small T, where the
        cap would silently lower the mask rate, so the larger of the two is taken.
        """
        p, row_length = self.objective.mask_probability, self.data.max_seq_length
        return min(row_length, max(1, int((p + 0.005) * row_length), round(p * row_length)))


HF_FOLDER = "hf:"  # how config.init names a Hugging Face folder
CHOICES = {
    "model.tying": ("embeddings", "none", "all", "gradient_disentangled"),
    "model.compute_dtype": ("float32", "bfloat16"),
    "model.remat": ("full", "dots", "none"),
    "model.kernels": ("none", "auto"),
    "optimizer.kind": ("adam", "lamb"),
    "objective.kind": ("electra", "uniform", "mlm"),
}


def resolve(config: Config, *, vocab_size: int, max_seq_length: int, special: SpecialIds) -> Config:
    """Fills in what the dataset decides and checks the whole.

    Args:
      config: as read from a config file.
      vocab_size: entries of the vocabulary the dataset was packed with.
      max_seq_length: T, tokens a row.
      special: ids of the special tokens.

    Raises:
      UserError: a setting contradicts the dataset or another setting.
    """
    _agree("model.vocab_size", config.model.vocab_size, vocab_size)
    _agree("data.max_seq_length", config.data.max_seq_length, max_seq_length)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=vocab_size),
        data=dataclasses.replace(config.data, max_seq_length=max_seq_length, special=special),
    )
    check(config)
    return config


def _agree(name: str, configured: int, found: int) -> None:
    if configured not in (0, found):
        raise UserError(
            f"config.{name}={configured} but the packed dataset has {found}; set config.{name}=0 to take the "
            "dataset's, or pack the text again with the setting you want"
        )


def check(config: Config) -> None:
    """Raises UserError where a setting is out of range or two contradict each other."""
    values = config_io.flatten(to_dict(config))
    for name, choices in CHOICES.items():
        config_io.require(name, values[name], values[name] in choices, "one of " + ", ".join(choices))
    model, objective, optimizer = config.model, config.objective, config.optimizer
    positive = [
        "batch_size gradient_accumulation_steps total_steps log_every eval_every eval_batches save_every max_to_keep",
        "data.max_seq_length",
        "model.vocab_size model.max_positions model.embedding_size model.hidden_size model.num_layers",
        "model.num_heads model.intermediate_size model.generator_hidden_size model.generator_num_layers",
        "model.generator_num_heads model.generator_intermediate_size objective.temperature",
        "model.kernel_stddev optimizer.epsilon optimizer.clip_norm mesh.fsdp mesh.tensor preemption_grace_seconds",
        "data.cache_gigabytes",
    ]
    for name in " ".join(positive).split():
        config_io.require(name, values[name], values[name] > 0, "a number above 0")
    for name in ("model.dropout", "model.attention_dropout", "optimizer.beta1", "optimizer.beta2"):
        config_io.require(name, values[name], 0 <= values[name] < 1, "a number from 0 up to, not including, 1")
    for name in ("optimizer.learning_rate", "optimizer.weight_decay", "optimizer.warmup_steps",
                 "optimizer.decay_power", "objective.generator_weight", "objective.discriminator_weight",
                 "keep_period"):  # fmt: skip
        config_io.require(name, values[name], values[name] >= 0, "a number of at least 0")
    config_io.require(
        "mesh.data",
        config.mesh.data,
        config.mesh.data == -1 or config.mesh.data > 0,
        "-1 or above 0",
    )
    trackers.check_trackers(config.trackers)
    if config.init and not config.init.startswith(HF_FOLDER):
        raise UserError(f"config.init={config.init!r}: wanted {HF_FOLDER}DIR, a Hugging Face ELECTRA folder")
    p = objective.mask_probability
    config_io.require("objective.mask_probability", p, 0 < p < 1, "a fraction between 0 and 1, such as 0.15")
    share = objective.mask_token_share
    config_io.require("objective.mask_token_share", share, 0 <= share <= 1, "a fraction from 0 to 1, such as 0.85")
    for name, encoder in (("", model.discriminator), ("generator_", model.generator)):
        if encoder.hidden_size % encoder.num_heads:
            raise UserError(
                f"config.model.{name}hidden_size={encoder.hidden_size} is not divisible by "
                f"config.model.{name}num_heads={encoder.num_heads}; use heads of 64: "
                f"{name}num_heads={max(1, encoder.hidden_size // 64)}"
            )
    if config.data.max_seq_length > model.max_positions:
        raise UserError(
            f"rows of {config.data.max_seq_length} tokens need config.model.max_positions of at least that; "
            f"got {model.max_positions}"
        )
    if optimizer.warmup_steps >= config.total_steps:
        raise UserError(
            f"config.optimizer.warmup_steps={optimizer.warmup_steps} leaves no step after the warm-up; use fewer than "
            f"config.total_steps={config.total_steps}, usually {max(1, config.total_steps // 100)}"
        )
    if config.keep_period % config.save_every:
        more = round_up(config.keep_period, config.save_every)
        raise UserError(
            f"config.keep_period={config.keep_period} is no multiple of config.save_every={config.save_every}, so that "
            f"few of its steps would be saved; use {more}, or 0 to keep the newest alone"
        )
    if objective.kind == "mlm" and model.tying != "all":
        raise UserError(
            f"config.objective.kind=mlm trains one encoder; got config.model.tying={model.tying}; set it to all"
        )


# ---- presets -------------------------------------------------------------------------------------------------------


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dicts, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """The inverse of `to_dict`; see `settings.from_dict`."""
    return config_io.from_dict(Config, values)


def from_saved(values: Mapping[str, Any]) -> Config:
    """As `from_dict`, of a run that may be older than some settings; see `settings.from_saved`."""
    return config_io.from_saved(Config, values)


def from_flags(arguments: Sequence[str]) -> Config:
    """A pre-training run's; see `settings.from_flags`."""
    return config_io.from_flags(Config, arguments, example="configs/pretrain_small.py")
