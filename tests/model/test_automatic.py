"""The choice of automatic settings, as a table of devices and recipes."""

from __future__ import annotations

import dataclasses

import pytest

from electramed_jax.common.config_io import AUTO
from electramed_jax.config import presets
from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.model import automatic
from electramed_jax.model.automatic import Choice, Devices
from electramed_jax.model.kernels import attention, gelu, residual_norm

GIB = 2**30
ON_TPU, ON_GPU, NO_KERNELS = "attention,residual_norm", "attention,gelu,residual_norm", "none"
PLAIN_CPU = Devices("cpu", "cpu", 1, 16 * GIB, has_bfloat16=False)
FAST_CPU = dataclasses.replace(PLAIN_CPU, has_bfloat16=True)
T4 = Devices("gpu", "Tesla T4", 1, 14 * GIB, has_bfloat16=False)
V100 = Devices("gpu", "Tesla V100-SXM2-16GB", 1, 16 * GIB, has_bfloat16=False)
A100 = Devices("gpu", "NVIDIA A100-SXM4-40GB", 1, 40 * GIB)
H100 = Devices("gpu", "NVIDIA H100 80GB HBM3", 1, 80 * GIB)
H200 = Devices("gpu", "NVIDIA H200", 1, 140 * GIB)
MI300 = Devices("rocm", "AMD Instinct MI300X", 1, 190 * GIB)
V2 = Devices("tpu", "TPU v2", 1, 8 * GIB)
V4 = Devices("tpu", "TPU v4", 1, int(30.75 * GIB))
V5E = Devices("tpu", "TPU v5 lite", 1, int(15.75 * GIB))
V5P = Devices("tpu", "TPU v5", 1, int(95.74 * GIB))
V6E = Devices("tpu", "TPU v6 lite", 1, int(31.25 * GIB))
V7X = Devices("tpu", "TPU7x", 1, int(94.75 * GIB))
UNKNOWN_TPU = Devices("tpu", "TPU v99", 1, 192 * GIB)


def resolved(name: str = "base", row_length: int = 512, **settings: object) -> Config:
    config = dataclasses.replace(presets.PRESETS[name], **settings)
    return config_lib.resolve(config, vocab_size=31_090, max_seq_length=row_length, special=SpecialIds())


def chosen(config: Config, devices: Devices) -> tuple[object, ...]:
    """Returns compute_dtype, kernels, scan_layers and fsdp."""
    model, mesh = automatic.choose(config, devices).config.model, automatic.choose(config, devices).config.mesh
    return model.compute_dtype, model.kernels, model.scan_layers, mesh.fsdp


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (PLAIN_CPU, ("float32", NO_KERNELS, True)),
        (FAST_CPU, ("bfloat16", NO_KERNELS, True)),
        (dataclasses.replace(FAST_CPU, count=8), ("float32", NO_KERNELS, True)),
        (T4, ("float32", NO_KERNELS, False)),
        (V100, ("float32", NO_KERNELS, False)),
        (A100, ("bfloat16", NO_KERNELS, False)),
        (H100, ("bfloat16", ON_GPU, False)),
        (H200, ("bfloat16", ON_GPU, False)),
        (MI300, ("bfloat16", NO_KERNELS, False)),
        (V2, ("bfloat16", NO_KERNELS, False)),
        (V4, ("bfloat16", ON_TPU, False)),
        (V5E, ("bfloat16", ON_TPU, False)),
        (V5P, ("bfloat16", ON_TPU, False)),
        (V6E, ("bfloat16", ON_TPU, False)),
        (V7X, ("bfloat16", ON_TPU, False)),
        (UNKNOWN_TPU, ("bfloat16", NO_KERNELS, False)),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["small", "base", "large"])
def test_dtype_kernels_and_scan_follow_from_the_kind_of_device(name, devices, expected):
    assert chosen(resolved(name), devices)[:3] == expected


@pytest.mark.parametrize(
    ("devices", "expected"), [(V5E, "paired"), (V2, "paired"), (H200, "single"), (PLAIN_CPU, "single")], ids=str
)
def test_tpus_draw_two_attention_dropouts_from_a_hash(devices, expected):
    assert automatic.choose(resolved("base"), devices).config.model.attention_dropout_hash == expected


def test_a_run_that_began_on_tpus_continues_on_a_gpu_without_the_kernel_of_attention():
    config = resolved("base")
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention_dropout_hash="paired"))
    assert "attention" not in automatic.choose(config, H200).config.model.kernels.split(",")


FSDP_OF_TPUS = {1: 1, 4: 4, 16: 16, 64: 8, 256: 16}  # by devices of a slice


@pytest.mark.parametrize("slices", [1, 2])
@pytest.mark.parametrize("per_slice", [1, 4, 16, 64, 256])
@pytest.mark.parametrize(
    "devices", [PLAIN_CPU, FAST_CPU, T4, A100, H100, H200, V4, V5E, V5P, V6E, V7X], ids=lambda devices: devices.kind
)
def test_every_setting_follows_from_kind_count_and_slices(devices, per_slice, slices):
    many = dataclasses.replace(devices, count=per_slice * slices, num_slices=slices)
    on_tpu = devices.platform == "tpu"
    assert chosen(resolved(), many)[3] == (FSDP_OF_TPUS[per_slice] if on_tpu else 1)
    # The other settings depend on the kind alone, except that several CPU devices multiply in float32.
    alone = chosen(resolved(), devices)[:3]
    if devices is FAST_CPU and many.count > 1:
        alone = ("float32", *alone[1:])
    assert chosen(resolved(), many)[:3] == alone


def test_gpus_shard_a_state_that_takes_much_of_their_memory():
    eight = dataclasses.replace(T4, count=8, memory_bytes=14 * GIB)
    assert chosen(resolved("base"), eight)[3] == 1
    assert chosen(resolved("large"), eight)[3] == 8


def test_fsdp_divides_the_widths_of_the_model_and_leaves_the_other_axes():
    sixteen = dataclasses.replace(V5E, count=16)
    narrow = dataclasses.replace(presets.PRESETS["base"].model, generator_hidden_size=24, generator_num_heads=1)
    assert chosen(resolved(model=narrow), sixteen)[3] == 8, "16 does not divide a width of 24"
    assert chosen(resolved(mesh=MeshConfig(fsdp=AUTO, tensor=2)), sixteen)[3] == 8
    assert chosen(resolved(mesh=MeshConfig(data=2, fsdp=AUTO, tensor=2)), sixteen)[3] == 4
    assert chosen(resolved(mesh=MeshConfig(fsdp=2)), sixteen)[3] == 2, "a number that the config gives is not changed"


@pytest.mark.parametrize("row_length", [320, 640, 1024])
def test_rows_that_no_kernel_supports_are_named_in_the_reason(row_length):
    model = dataclasses.replace(presets.PRESETS["base"].model, max_positions=1024)
    choice = automatic.choose(resolved(row_length=row_length, model=model), dataclasses.replace(V5E, count=16))
    assert choice.config.model.kernels == "residual_norm"
    assert f"no kernel for rows of {row_length} tokens" in choice.reasons["model.kernels"]
    assert "attention of the discriminator" in choice.reasons["model.kernels"]


def test_a_gpu_without_the_triton_backend_takes_the_plain_form(monkeypatch):
    for module in (automatic, attention.platform, gelu.platform, residual_norm.platform):
        monkeypatch.setattr(module, "has_triton", lambda: False)
    choice = automatic.choose(resolved(), H200)
    assert choice.config.model.kernels == NO_KERNELS
    assert "no Pallas for Triton" in choice.reasons["model.kernels"]


@pytest.mark.parametrize(
    ("devices", "batch_size", "remat"),
    [
        (dataclasses.replace(V5E, count=16), 256, "none"),
        (dataclasses.replace(V5E, count=16), 2048, "dots"),
        (dataclasses.replace(V5E, count=16), 8192, "full"),
        (dataclasses.replace(V5P, count=16), 2048, "none"),
        (FAST_CPU, 32, "none"),
    ],
    ids=str,
)
def test_the_first_form_of_remat_is_the_fastest_that_can_fit(devices, batch_size, remat):
    assert automatic.choose(resolved(batch_size=batch_size), devices).config.model.remat == remat


def test_more_micro_batches_need_less_memory():
    sixteen, config = dataclasses.replace(V5E, count=16), resolved(batch_size=2048)
    assert automatic.choose(config, sixteen).config.model.remat == "dots"
    config = dataclasses.replace(config, gradient_accumulation_steps=4)
    assert automatic.choose(config, sixteen).config.model.remat == "none"


def test_every_choice_has_a_reason_and_nothing_else_changes():
    config = resolved()
    choice = automatic.choose(config, dataclasses.replace(V5E, count=16))
    assert set(choice.reasons) == set(automatic.RULES) and all(choice.reasons.values())
    assert config_lib.from_dict(config_lib.to_dict(choice.config)) == choice.config
    back = choice.config
    for name in automatic.RULES:
        back = automatic.replace_setting(back, name, AUTO)
    assert back == config
    assert any(line.startswith("mesh.fsdp=16: ") for line in choice.lines())
    assert choice.to_json()["automatic_settings"]["mesh.fsdp"]["value"] == 16


def test_settings_with_a_value_are_not_chosen():
    config = choice_of_plain = resolved(model=automatic.plain_model(presets.PRESETS["base"].model), mesh=MeshConfig())
    assert automatic.choose(config, dataclasses.replace(V5E, count=16)) == Choice(choice_of_plain)
