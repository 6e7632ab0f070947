"""Chooses the settings of a pre-training run that are "auto", from its config and its devices.

`choose` is a pure function: it reads no file and uses no device. Its memory estimate is a lower bound, from which the
first form of rematerialization follows; the compiler's memory analysis decides (pretrain/automatic.py).
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax.numpy as jnp

from electramed_jax.common.config_io import AUTO
from electramed_jax.config.pretrain import KERNELS, Config, EncoderConfig, ModelConfig
from electramed_jax.model.kernels import attention, gelu, residual_norm
from electramed_jax.model.kernels.platform import has_triton

# The values that every device supports; settings that stay "auto" outside of pre-training take them.
PLAIN_MODEL: dict[str, Any] = dict(
    compute_dtype="float32", remat="none", scan_layers=True, kernels="none", attention_dropout_hash="single"
)

# Encoders of Electric's generator. They attend in one direction, for which attention has no kernel.
TOWERS = ("left-to-right tower", "right-to-left tower")

REMAT_FORMS = ("none", "dots", "full")  # by decreasing memory and increasing time

# Device kinds on which the kernels were run, or for which libtpu compiled them; no others take them.
RUN_ON = re.compile(r"NVIDIA (H200|H100|GH200)\b")  # run on an H200; the others have its instructions
COMPILED_FOR = re.compile(r"TPU (v4|v5 lite|v5e|v5|v5p|v6 lite|v6e)|TPU7x")

# Sharding over all chips of a slice is fastest up to here. On larger slices fsdp stays on one axis of the torus: over
# more, libtpu makes an all-reduce of a reduce-scatter, with twice the bytes (tests/benchmarks/README.md).
MAX_WHOLE_SLICE = 16
MAX_STATE_FRACTION = 0.25  # of a GPU's memory; above it parameters and optimizer state are sharded
GPUS_OF_A_HOST = 8  # connected by NVLink
STATE_BYTES = 16  # per parameter: parameter, two moments and gradient in float32
SAVED_WIDTHS = {
    "none": 14,
    "dots": 10,
    "full": 1,
}  # arrays per token and layer, in widths of the encoder: a lower bound


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run, as far as the choice depends on them.

    Attributes:
      platform: "tpu", "gpu" (NVIDIA), "rocm" (AMD) or "cpu".
      kind: jax's `device_kind`, such as "TPU v5 lite" or "NVIDIA H200".
      count: of all processes and slices.
      memory_bytes: of one device.
      num_slices: TPU slices that the data-center network connects.
      has_bfloat16: whether the device has instructions for products in bfloat16.
    """

    platform: str
    kind: str
    count: int
    memory_bytes: int
    num_slices: int = 1
    has_bfloat16: bool = True

    def __str__(self) -> str:
        slices = f" in {self.num_slices} slices" if self.num_slices > 1 else ""
        return f"{self.count} {self.kind}{slices}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A config without automatic settings, and the reason for each setting that was chosen, by its name."""

    config: Config
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def lines(self) -> list[str]:
        """Returns a line "name=value: reason" for each chosen setting."""
        return [f"{name}={get_setting(self.config, name)}: {reason}" for name, reason in self.reasons.items()]

    def to_json(self) -> dict[str, Any]:
        """Returns {"automatic_settings": {name: {"value": ..., "reason": ...}}} of the chosen settings."""
        settings = {
            name: {"value": get_setting(self.config, name), "reason": reason} for name, reason in self.reasons.items()
        }
        return {"automatic_settings": settings}

    def replace(self, name: str, value: Any, reason: str) -> Choice:
        """Returns the choice with another value of a setting, and the reason for it."""
        return Choice(replace_setting(self.config, name, value), self.reasons | {name: reason})


def get_setting(config: Config, name: str) -> Any:
    """Returns the value of "model.remat" or another setting of a group."""
    group, field = name.split(".")
    return getattr(getattr(config, group), field)


def replace_setting(config: Config, name: str, value: Any) -> Config:
    """Returns the config with another value of "model.remat" or another setting of a group."""
    group, field = name.split(".")
    return dataclasses.replace(config, **{group: dataclasses.replace(getattr(config, group), **{field: value})})


def plain_model(model: ModelConfig) -> ModelConfig:
    """Returns the model with the values of `PLAIN_MODEL` for settings that are "auto"."""
    automatic = {name: value for name, value in PLAIN_MODEL.items() if getattr(model, name) == AUTO}
    return dataclasses.replace(model, **automatic) if automatic else model


def choose(config: Config, devices: Devices) -> Choice:
    """Returns the config with a value for each setting that is "auto", and the reasons.

    Args:
      config: resolved, so that vocabulary and row length are known.
      devices: of the whole run.
    """
    choice = Choice(config)
    for name, rule in RULES.items():  # a rule sees the choices before it
        if get_setting(config, name) == AUTO:
            choice = choice.replace(name, *rule(choice.config, devices))
    return choice


def _choose_compute_dtype(_config: Config, devices: Devices) -> tuple[str, str]:
    if not devices.has_bfloat16:
        return "float32", f"{devices.kind} has no bfloat16 instructions"
    if devices.platform == "cpu" and devices.count > 1:
        return "float32", "bfloat16 is faster in a program for one CPU device, not for several"
    return "bfloat16", f"{devices.kind} has bfloat16 instructions; parameters and losses stay float32"


def _choose_dropout_hash(_config: Config, devices: Devices) -> tuple[str, str]:
    if devices.platform == "tpu":
        return "paired", "half the operations for dropout of attention probabilities"
    return "single", f"there is no faster form on {devices.kind}"


def _choose_kernels(config: Config, devices: Devices) -> tuple[str, str]:
    if devices.platform not in ("tpu", "gpu"):
        return "none", f"there are no kernels for {devices.kind}"
    if devices.platform == "gpu" and not has_triton():
        return "none", "this version of jax has no Pallas for Triton, which the GPU kernels are written in"
    was_run, was_compiled = RUN_ON.match(devices.kind), COMPILED_FOR.fullmatch(devices.kind)
    if not was_run and not was_compiled:
        return "none", f"the kernels were neither run on {devices.kind} nor compiled for it"
    names, plain = [], []
    for name in KERNELS:
        supported = {
            label: not (name == "attention" and label in TOWERS) and _supports(name, sizes, config, devices)
            for label, sizes in _encoders(config).items()
        }
        if None in supported.values():  # XLA's own fusion is as fast there
            continue
        if any(supported.values()):
            names.append(name)
        plain += [f"{name} of the {label}" for label, supports in supported.items() if not supports]
    reason = "run on this kind of device" if was_run else f"compiled for {devices.kind}, not yet run on one"
    if plain:
        rows = f"rows of {config.data.max_seq_length} tokens"
        reason += f"; the plain form for {', '.join(plain)}: no kernel for {rows} and these widths"
    return ",".join(names) or "none", reason


def _encoders(config: Config) -> dict[str, EncoderConfig]:
    encoders = {"discriminator": config.model.discriminator}
    if config.objective.kind == "electric":
        encoders |= dict.fromkeys(TOWERS, config.model.generator)
    elif config.objective.kind != "uniform" and config.model.tying != "all":
        encoders["generator"] = config.model.generator
    return encoders


def _supports(kernel: str, sizes: EncoderConfig, config: Config, devices: Devices) -> bool | None:
    """Returns whether a kernel supports an encoder; None if the platform has no such kernel."""
    module = {"attention": attention, "gelu": gelu, "residual_norm": residual_norm}[kernel].load_kernels(
        devices.platform
    )
    if module is None:
        return None
    row_length, shards = config.data.max_seq_length, config.mesh.tensor
    if kernel == "residual_norm":
        return module.supports(row_length, sizes.hidden_size)
    if kernel == "gelu":
        width, dtype = sizes.intermediate_size, jnp.dtype(config.model.compute_dtype)
        return width % shards == 0 and module.supports(row_length, width // shards, dtype)
    if sizes.num_heads % shards:
        return False
    paired = config.model.attention_dropout_hash == "paired"  # on a GPU: a run that began on TPUs
    return module.supports(row_length, sizes.num_heads // shards, sizes.head_size, paired_dropout=paired)


def _choose_scan_layers(_config: Config, devices: Devices) -> tuple[bool, str]:
    if devices.platform == "cpu":
        return True, "one layer is compiled for all"
    return False, "faster steps: activations are not copied to stacks and back"


def _choose_fsdp(config: Config, devices: Devices) -> tuple[int, str]:
    mesh, per_slice = config.mesh, devices.count // devices.num_slices
    if mesh.data != -1:
        return max(1, devices.count // (mesh.data * mesh.tensor)), "what mesh.data and mesh.tensor leave"
    limit = max(1, per_slice // mesh.tensor)
    if limit == 1:
        return 1, "one device" if devices.count == 1 else "mesh.tensor takes the devices of a slice"
    if devices.platform == "cpu":
        return 1, "virtual CPU devices share one memory"
    if devices.platform != "tpu":
        state = STATE_BYTES * count_parameters(config) / devices.memory_bytes
        if state <= MAX_STATE_FRACTION:
            return 1, f"parameters and optimizer state take {state:.0%} of a GPU"
        return _largest_divisor(limit, GPUS_OF_A_HOST, config), f"parameters and optimizer state take {state:.0%}"
    if limit <= MAX_WHOLE_SLICE:
        return _largest_divisor(limit, limit, config), "all chips of a slice share parameters and optimizer state"
    side = 2 ** ((limit.bit_length()) // 2)
    return _largest_divisor(limit, side, config), "one axis of the torus, where reduce-scatter sends the fewest bytes"


def _largest_divisor(devices: int, limit: int, config: Config) -> int:
    """Returns the largest number up to `limit` that divides the devices and the widths of the model."""
    model = config.model
    widths = (model.hidden_size, model.embedding_size, model.generator.hidden_size)
    return max(n for n in range(1, limit + 1) if devices % n == 0 and all(width % n == 0 for width in widths))


def _choose_remat(config: Config, devices: Devices) -> tuple[str, str]:
    for form in REMAT_FORMS:
        needed = least_bytes(config, devices, form)
        if needed <= devices.memory_bytes:
            break
    return form, f"the fastest form that can fit: at least {_gib(needed)} of {_gib(devices.memory_bytes)} GiB a device"


def count_parameters(config: Config) -> int:
    """Returns about the number of parameters: those of word tables, encoders and heads."""
    model, count = config.model, 0
    for sizes in _encoders(config).values():
        D, F = sizes.hidden_size, sizes.intermediate_size
        count += sizes.num_layers * (4 * D * D + 2 * D * F)
    return count + model.padded_vocab_size * model.embedding_size


def least_bytes(config: Config, devices: Devices, remat: str) -> int:
    """Returns a lower bound of the memory that a train step needs on a device with this form of rematerialization."""
    mesh, model = config.mesh, config.model
    assert mesh.fsdp != AUTO, "chosen before"
    rows = config.batch_size * mesh.tensor // (devices.count * config.gradient_accumulation_steps)
    size = jnp.dtype(model.compute_dtype).itemsize
    per_token = sum(
        sizes.num_layers * sizes.hidden_size * SAVED_WIDTHS[remat] * size for sizes in _encoders(config).values()
    )
    activations = rows * config.data.max_seq_length * per_token // mesh.tensor
    return activations + (STATE_BYTES - 4) * count_parameters(config) // (mesh.fsdp * mesh.tensor)


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f}"


# Chosen once for a run, on whatever devices it resumes: another value changes the numbers.
NUMERIC_SETTINGS = ("model.compute_dtype", "model.attention_dropout_hash")
RULES = {
    "model.compute_dtype": _choose_compute_dtype,
    "model.attention_dropout_hash": _choose_dropout_hash,
    "mesh.fsdp": _choose_fsdp,
    "model.kernels": _choose_kernels,
    "model.scan_layers": _choose_scan_layers,
    "model.remat": _choose_remat,
}
