"""Settings of a pre-training run: frozen dataclasses, read once at the entry point of a command.

A config file returns an `ml_collections.ConfigDict` made by `preset(...)`. `from_flags` applies `--config.a.b=c` of the
command line to it, freezes the result and checks every range. `resolve` fills in the settings documented as
"0: from the dataset" and checks settings against each other; neither needs a device. `model/automatic.py` chooses the
settings that are "auto", which needs the devices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.config_io import AUTO, Auto
from electramed_jax.common.errors import UserError
from electramed_jax.common.rounding import round_up
from electramed_jax.common.tracking import trackers
from electramed_jax.config import recipes
from electramed_jax.config.fields import (
    FRACTION,
    NON_NEGATIVE,
    POSITIVE,
    Constraint,
    check_fields,
    one_of,
    or_auto,
    setting,
)
from electramed_jax.config.special_tokens import SpecialIds

VOCAB_MULTIPLE = 128  # rows of the embedding table are padded to a whole number of TPU lanes
HF_FOLDER = "hf:"  # prefix of config.init for a Hugging Face folder
TYINGS = ("embeddings", "none", "all", "gradient_disentangled")
KERNELS = ("attention", "gelu", "residual_norm")  # modules of model/kernels/
ALL_KERNELS = ",".join(KERNELS)


def pad_vocab_size(vocab_size: int) -> int:
    """Returns the rows of an embedding table for `vocab_size` tokens: the next multiple of `VOCAB_MULTIPLE`."""
    return round_up(vocab_size, VOCAB_MULTIPLE)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Sizes of one transformer encoder."""

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes and numerics of the generator-discriminator pair."""

    vocab_size: int = setting(0, "tokens of the vocabulary; 0: from the dataset", NON_NEGATIVE, "tokens")
    max_positions: int = setting(512, "rows of the position table; the longest sequence", POSITIVE, "tokens")
    embedding_size: int = setting(128, "width of the embeddings", POSITIVE)
    hidden_size: int = setting(256, "width of the discriminator", POSITIVE)
    num_layers: int = setting(12, "layers of the discriminator", POSITIVE)
    num_heads: int = setting(4, "attention heads of the discriminator", POSITIVE)
    intermediate_size: int = setting(1024, "feed-forward width of the discriminator", POSITIVE)
    generator_hidden_size: int = setting(64, "width of the generator", POSITIVE)
    generator_num_layers: int = setting(12, "layers of the generator", POSITIVE)
    generator_num_heads: int = setting(1, "attention heads of the generator", POSITIVE)
    generator_intermediate_size: int = setting(256, "feed-forward width of the generator", POSITIVE)
    tying: str = setting(
        "embeddings",
        "parameters that the generator shares with the discriminator; embeddings: the embedding tables; none: nothing; "
        "all: embeddings and encoder; gradient_disentangled: embeddings, to which the discriminator adds its own delta",
        one_of(*TYINGS),
    )
    # google-research/electra modeling.py:46
    dropout: float = setting(0.1, "dropout rate of embeddings and sub-layer outputs", FRACTION)
    # google-research/electra modeling.py:47
    attention_dropout: float = setting(0.1, "dropout rate of attention probabilities", FRACTION)
    attention_dropout_hash: str = setting(
        "single",
        "random bits for dropout of attention probabilities; single: a hash for each; paired: one for two, which is "
        "faster on TPUs and drops others; auto: paired on TPUs",
        one_of(AUTO, "single", "paired"),
    )
    # 0.02 is ELECTRA's for every size. It is too small for narrow models, where 1/sqrt(width) is larger: at width 128,
    # 0.08 lets the discriminator leave its plateau several times sooner.
    kernel_stddev: float = setting(0.02, "standard deviation, before truncation, of initial dense kernels", POSITIVE)
    compute_dtype: str = setting(
        "float32",
        "dtype of matrix products and activations; parameters and losses are float32 either way; auto: bfloat16 on "
        "devices with instructions for it",
        one_of(AUTO, "float32", "bfloat16"),
    )
    remat: str = setting(
        "full",
        "activations that the backward pass recomputes, layer by layer; full: all; dots: all except products with "
        "weights and the attention's result; none: nothing; auto: the least that fits in memory",
        one_of(AUTO, "full", "dots", "none"),
    )
    scan_layers: bool | Auto = setting(
        True,
        "compile one layer for all; False: faster steps on TPUs and GPUs, longer compilation; auto: by the device",
        or_auto(),
    )
    kernels: str = setting(
        "none",
        "Pallas kernels, used for the sizes that they support: names separated by commas, or none; auto: those that "
        "were run on the device or compiled for it",
        Constraint(
            f"auto, none, or some of {', '.join(KERNELS)} separated by commas",
            lambda value: value in (AUTO, "none") or set(value.split(",")) <= set(KERNELS),
        ),
    )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word table; those after the last token are unused."""
        return pad_vocab_size(self.vocab_size)

    def uses_kernel(self, name: str) -> bool:
        """Returns whether `kernels` names this kernel."""
        return name in self.kernels.split(",")

    @property
    def discriminator(self) -> EncoderConfig:
        """Sizes of the discriminator's encoder."""
        return EncoderConfig(self.num_layers, self.hidden_size, self.num_heads, self.intermediate_size)

    @property
    def generator(self) -> EncoderConfig:
        """Sizes of the generator's encoder; with `tying=all` it is the discriminator's."""
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
        """Width of the generator's embeddings; untied tables have its own width (electra modeling.py:187)."""
        return self.generator_hidden_size if self.tying == "none" else self.embedding_size


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Replaced-token detection and its variants; numbers from google-research/electra configure_pretraining.py."""

    kind: str = setting(
        "electra",
        "electra: replacements sampled by the generator; uniform: sampled uniformly; mlm: masked language model only; "
        "electric: energies by noise-contrastive estimation, with a generator of two towers",
        one_of("electra", "uniform", "mlm", "electric"),
    )
    mask_probability: float = setting(
        0.15,
        "fraction of the tokens that is masked, special tokens apart",
        Constraint("a fraction between 0 and 1, such as 0.15", lambda value: 0 < value < 1),
    )
    mask_token_share: float = setting(
        0.85,
        "fraction of the masked positions that becomes [MASK]; the others keep their token",
        Constraint("a fraction from 0 to 1, such as 0.85", lambda value: 0 <= value <= 1),
    )
    generator_weight: float = setting(1.0, "weight of the generator's loss", NON_NEGATIVE)
    discriminator_weight: float = setting(50.0, "weight of the discriminator's loss", NON_NEGATIVE)
    temperature: float = setting(1.0, "softmax temperature of the sampled replacements", POSITIVE)
    disallow_correct: bool = setting(False, "never sample the original token")
    # Meng et al. 2021 (COCO-LM), section 3.1, without its copy mechanism and at the masked positions only.
    corrective_weight: float = setting(
        0.0,
        "weight of a second loss of the discriminator, which predicts the original tokens of the masked positions from "
        "the corrupted text; 0: none",
        NON_NEGATIVE,
    )

    @property
    def has_corrective_head(self) -> bool:
        """Whether the discriminator also predicts original tokens."""
        return self.corrective_weight > 0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, LAMB or Muon with decoupled weight decay; linear warm-up times polynomial decay."""

    # LAMB: You et al. 2020. Muon: Jordan et al. 2024.
    kind: str = setting(
        "adam",
        "adam: ELECTRA's, without bias correction; lamb: bias-corrected, the update of each matrix scaled to the norm "
        "of the matrix, for batches of many thousand rows; muon: the matrices of the layers by orthogonalized "
        "momentum, all other parameters by Adam",
        one_of("adam", "lamb", "muon"),
    )
    learning_rate: float = setting(5e-4, "peak learning rate", NON_NEGATIVE)
    warmup_steps: int = setting(10_000, "linear warm-up", NON_NEGATIVE, "steps")
    decay_power: float = setting(1.0, "power of the polynomial decay; 1: linear, 0: constant", NON_NEGATIVE)
    decay_start: float = setting(0.0, "fraction of the run after which the decay begins; 0: at once", FRACTION)
    muon_momentum: float = setting(0.95, "decay rate of Muon's momentum", FRACTION)
    beta1: float = setting(0.9, "decay rate of the mean of the gradient", FRACTION)
    beta2: float = setting(0.999, "decay rate of the mean of the squared gradient", FRACTION)
    epsilon: float = setting(1e-6, "added to the root of the mean squared gradient", POSITIVE)
    weight_decay: float = setting(0.01, "decoupled weight decay; biases and layer norms have none", NON_NEGATIVE)
    clip_norm: float = setting(1.0, "global norm to which larger gradients are scaled", POSITIVE)

    def get_warmup_steps(self, total_steps: int) -> float:  # noqa: ARG002 - fine-tuning's warm-up is a fraction of it
        """Returns the steps of warm-up in a run of `total_steps`."""
        return self.warmup_steps


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis."""

    data: int = setting(
        -1,
        "devices along the data axis; -1: all that the other axes leave",
        Constraint("-1 or above 0", lambda value: value == -1 or value > 0),
        "devices",
    )
    fsdp: int | Auto = setting(
        1,
        "devices over which parameters and optimizer state are sharded; auto: chosen by pre-training, 1 elsewhere",
        or_auto(POSITIVE),
        "devices",
    )
    tensor: int = setting(1, "devices over which each layer is sharded (tensor parallelism)", POSITIVE, "devices")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Packed datasets and the order of their rows."""

    directory: str = setting(
        "", "folder of a packed dataset, or several separated by commas: packed/abstracts,packed/full_text"
    )
    weights: str = setting(
        "",
        "mixing weights of several folders, in their order: 3,1 feeds three rows of the first for each row of the "
        'second; "": in proportion to their rows',
    )
    seed: int = setting(0, "seed of the row order", NON_NEGATIVE)
    cache_directory: str = setting(
        "", 'local folder that caches remote shards, for later epochs and runs; "": no cache'
    )
    cache_gigabytes: float = setting(50.0, "largest size of the cache", POSITIVE, "gigabytes")
    verify_shards: str = setting(
        "background",
        "when whole shards are compared with the manifest; background: during the first steps, but not remote ones "
        "with a disk cache; first: before the first step; ends: only the first and last 64 KiB of each, as is always "
        "done at the start",
        one_of("background", "first", "ends"),
    )
    max_seq_length: int = setting(0, "T, the tokens of a row; 0: from the dataset", NON_NEGATIVE, "tokens")
    special: SpecialIds = setting(SpecialIds(), "special tokens; replaced by those of the dataset")


@dataclasses.dataclass(frozen=True)
class Config:
    """One pre-training run."""

    model: ModelConfig = setting(ModelConfig(), "sizes and numerics of the model")
    objective: ObjectiveConfig = setting(ObjectiveConfig(), "masking and losses")
    optimizer: OptimizerConfig = setting(OptimizerConfig(), "optimizer and learning rate schedule")
    mesh: MeshConfig = setting(MeshConfig(), "devices along each mesh axis")
    data: DataConfig = setting(DataConfig(), "packed datasets")
    seed: int = setting(0, "seed of initial parameters, masking, sampling and dropout")
    batch_size: int = setting(128, "rows per step, over all devices", POSITIVE, "rows")
    gradient_accumulation_steps: int = setting(
        1, "parts in which a batch is run, one after the other: less memory, the same update", POSITIVE
    )
    total_steps: int = setting(1_000_000, "training steps", POSITIVE, "steps")
    log_every: int = setting(100, "interval of logged metrics", POSITIVE, "steps")
    eval_every: int = setting(5_000, "interval of validation", POSITIVE, "steps")
    eval_batches: int = setting(64, "largest number of batches of a validation", POSITIVE, "batches")
    save_every: int = setting(5_000, "interval of checkpoints", POSITIVE, "steps")
    max_to_keep: int = setting(3, "newest checkpoints that are kept", POSITIVE, "checkpoints")
    keep_period: int = setting(
        0, "checkpoints at multiples of this step are kept permanently; 0: none", NON_NEGATIVE, "steps"
    )
    preemption_grace_seconds: float = setting(
        30.0, "time that the platform leaves between SIGTERM and the end of the process", POSITIVE, "seconds"
    )
    # Steps between two saves lose only time if a device corrupts them: each save compares first. So 0 is enough.
    check_every: int = setting(
        0,
        "interval at which the parameters of the replicas are compared, in addition to every save; 0: saves only",
        NON_NEGATIVE,
        "steps",
    )
    hang_seconds: float = setting(
        0.0,
        "longest time for a batch or a step, after which the run ends and names the host that was waited for; "
        "0: 20 median steps, and at least 300 seconds",
        NON_NEGATIVE,
        "seconds",
    )
    max_stalled_starts: int = setting(
        10,
        "starts in succession that were killed or hung before they saved, after which the run refuses to start: "
        "launchers would restart it for ever; 0: no limit",
        NON_NEGATIVE,
        "starts",
    )
    trackers: str = setting(
        "", "trackers in addition to TensorBoard: wandb or PACKAGE.MODULE:FUNCTION, several separated by commas"
    )
    init: str = setting(
        "",
        'hf:DIR, a Hugging Face ELECTRA folder or the parent of discriminator/ and generator/; "": random parameters',
    )

    @property
    def max_predictions(self) -> int:
        """Returns M, the largest number of masked positions of a row.

        `int((p + 0.005) T)` is google-research/electra's. It is less than `round(p T)` for a few small T, where the
        cap would silently lower the mask rate, so the larger of the two is taken.
        """
        p, max_seq_length = self.objective.mask_probability, self.data.max_seq_length
        return min(max_seq_length, max(1, int((p + 0.005) * max_seq_length), round(p * max_seq_length)))


def resolve(config: Config, *, vocab_size: int, max_seq_length: int, special: SpecialIds) -> Config:
    """Returns the config with the settings that the dataset decides, after `check`.

    Args:
      config: from a config file.
      vocab_size: tokens of the vocabulary that the dataset was packed with.
      max_seq_length: T, tokens of a row.
      special: ids of the special tokens.

    Raises:
      UserError: a setting contradicts the dataset or another setting.
    """
    _check_agrees("model.vocab_size", config.model.vocab_size, vocab_size)
    _check_agrees("data.max_seq_length", config.data.max_seq_length, max_seq_length)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, vocab_size=vocab_size),
        data=dataclasses.replace(config.data, max_seq_length=max_seq_length, special=special),
    )
    check(config)
    return config


def _check_agrees(name: str, configured: int, packed: int) -> None:
    if configured not in (0, packed):
        raise UserError(
            f"config.{name}={configured} but the packed dataset has {packed}; set config.{name}=0 to take the "
            "dataset's, or pack the text again with the setting you want"
        )


def check(config: Config) -> None:
    """Raises UserError if a setting of a resolved config is out of range or contradicts another one."""
    check_fields(config)
    model, optimizer = config.model, config.optimizer
    for name, value in (("model.vocab_size", model.vocab_size), ("data.max_seq_length", config.data.max_seq_length)):
        config_io.require(name, value, POSITIVE.holds(value), POSITIVE.wanted)
    trackers.check_trackers(config.trackers)
    if config.init and not config.init.startswith(HF_FOLDER):
        raise UserError(f"config.init={config.init!r}: wanted {HF_FOLDER}DIR, a Hugging Face ELECTRA folder")
    check_model(model)
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
        raise UserError(
            f"config.keep_period={config.keep_period} is not a multiple of config.save_every={config.save_every}, so "
            f"few of its steps would be saved; use {round_up(config.keep_period, config.save_every)}, or 0 to keep "
            "only the newest checkpoints"
        )
    if config.objective.kind == "mlm" and model.tying != "all":
        raise UserError(
            f"config.objective.kind=mlm trains one encoder; got config.model.tying={model.tying}; set it to all"
        )
    if config.objective.kind in ("mlm", "electric") and config.objective.has_corrective_head:
        raise UserError(
            f"config.objective.kind={config.objective.kind} has no corrective loss; got "
            f"config.objective.corrective_weight={config.objective.corrective_weight:g}; set it to 0"
        )
    if config.objective.kind == "electric":
        _check_electric(config)


def _check_electric(config: Config) -> None:
    if config.model.tying == "all":
        raise UserError(
            "config.objective.kind=electric has a generator of two towers, whose encoders the discriminator cannot "
            "share; got config.model.tying=all; set it to embeddings"
        )
    if config.objective.temperature != 1 or config.objective.disallow_correct:
        raise UserError(
            "config.objective.kind=electric needs samples of the distribution that its generator states; set "
            "config.objective.temperature=1 and config.objective.disallow_correct=False"
        )


def check_model(model: ModelConfig) -> None:
    """Raises UserError if a size of a model is out of range, or if a width does not divide by its number of heads."""
    check_fields(model)
    for name, encoder in (("", model.discriminator), ("generator_", model.generator)):
        if encoder.hidden_size % encoder.num_heads:
            raise UserError(
                f"config.model.{name}hidden_size={encoder.hidden_size} is not divisible by "
                f"config.model.{name}num_heads={encoder.num_heads}; use heads of 64: "
                f"{name}num_heads={max(1, encoder.hidden_size // 64)}"
            )


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the config as nested plain dicts, ready for JSON."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Any]) -> Config:
    """Builds a config from nested dicts, the inverse of `to_dict`; see `config_io.from_dict`."""
    return config_io.from_dict(Config, values)


def from_saved(values: Mapping[str, Any], path: str = "") -> Config:
    """Builds a config from the config.json of a run of this or an earlier version; see `config_io.from_saved`.

    Settings that were not saved take their defaults, which are never "auto". In earlier versions `model.kernels=auto`
    meant every kernel that supports the sizes.

    Args:
      values: content of the file.
      path: of the file, for messages.

    Raises:
      UserError: as `config_io.from_saved`, or a setting is out of range.
    """
    prefix = f"{path}: " if path else ""
    config = config_io.from_saved(Config, values, f"{prefix}config")
    if config.model.kernels == AUTO:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, kernels=ALL_KERNELS))
    try:
        check_fields(config)
        check_model(config.model)
    except UserError as error:
        raise UserError(f"{prefix}{error}") from error
    return config


def from_flags(arguments: Sequence[str]) -> Config:
    """Reads the config of a pre-training run from command-line arguments and checks every range.

    Raises:
      UserError: as `recipes.resolve_flags`, `config_io.from_flags`, or a setting is out of range.
    """
    config = config_io.from_flags(Config, recipes.resolve_flags(arguments, recipes.PRETRAIN), example="pretrain_small")
    check_fields(config)
    return config
