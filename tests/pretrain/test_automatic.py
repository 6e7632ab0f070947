"""Automatic settings of a run: the devices of this machine, the record in the workdir, and the form that fits."""

from __future__ import annotations

import dataclasses
import json

import jax
import pytest
import small

from electramed_jax.common.config_io import AUTO
from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import ALL_KERNELS, Config, MeshConfig, to_dict
from electramed_jax.model import automatic as rules
from electramed_jax.model.automatic import Choice, Devices
from electramed_jax.model.kernel_check import KernelCheck
from electramed_jax.pretrain import automatic, history
from electramed_jax.pretrain.automatic import MeasuredStep, fit_remat
from electramed_jax.pretrain.state import create
from electramed_jax.training import sharding

GIB = 2**30
SIXTEEN_CHIPS = Devices("tpu", "TPU v5 lite", 16, int(15.75 * GIB))


def automatic_config(**settings: object) -> Config:
    config = small.config(
        16, compute_dtype=AUTO, remat=AUTO, scan_layers=AUTO, kernels=AUTO, attention_dropout_hash=AUTO
    )
    return dataclasses.replace(config, mesh=MeshConfig(fsdp=AUTO), batch_size=64, **settings)


# ---- devices -----------------------------------------------------------------------------------------


def test_the_devices_of_this_machine_are_detected():
    devices = automatic.detect_devices()
    assert (devices.platform, devices.count, devices.num_slices) == ("cpu", 8, 1)
    assert 2**28 < devices.memory_bytes < 2**50


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("avx512_bf16 avx2", True), ("amx_bf16 amx_tile", True), ("avx512_bf16x", False)],
)
def test_bfloat16_instructions_are_read_from_the_processors_flags(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert automatic.cpu_has_bfloat16(str(tmp_path / "cpuinfo")) is expected


def test_another_operating_system_has_no_flags():
    assert not automatic.cpu_has_bfloat16("/nowhere/cpuinfo")


# ---- the record of a run ---------------------------------------------------------------------------------


def start(workdir, config: Config, devices: Devices) -> Choice:
    """Chooses as a run does at its start, and writes what a run writes."""
    choice = automatic.choose_for_workdir(config, devices, str(workdir))
    (workdir / "config.json").write_text(json.dumps(to_dict(choice.config)))
    automatic.record_choice(str(workdir), choice, devices)
    return choice


def test_a_resumed_run_keeps_its_settings_if_the_rules_change(tmp_path, monkeypatch):
    first = start(tmp_path, automatic_config(), SIXTEEN_CHIPS)
    other = {name: lambda *_: ("full", "another rule") for name in rules.RULES}
    monkeypatch.setattr(rules, "RULES", other)
    second = start(tmp_path, automatic_config(), SIXTEEN_CHIPS)
    assert second.config == first.config
    assert set(second.reasons.values()) == {automatic.KEPT}


def test_a_run_that_resumes_on_other_devices_chooses_again_but_keeps_dtype_and_dropout(tmp_path):
    start(tmp_path, automatic_config(), SIXTEEN_CHIPS)
    choice = start(tmp_path, automatic_config(), Devices("cpu", "cpu", 8, 16 * GIB, has_bfloat16=False))
    assert (choice.config.model.compute_dtype, choice.config.model.scan_layers) == ("bfloat16", True)
    assert choice.config.mesh.fsdp == 1 and choice.config.model.attention_dropout_hash == "paired"


def test_a_workdir_of_an_earlier_version_keeps_its_settings(tmp_path):
    """It has no automatic.json. Its `kernels=auto` meant every kernel that supports the sizes."""
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    saved = to_dict(small.config(16, remat="full"))
    saved["model"]["kernels"] = "auto"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    model = automatic.choose_for_workdir(automatic_config(), SIXTEEN_CHIPS, str(tmp_path)).config.model
    assert (model.kernels, model.remat, model.scan_layers, model.compute_dtype) == (
        ALL_KERNELS,
        "full",
        True,
        "float32",
    )
    assert model.attention_dropout_hash == "single"


def test_the_record_has_devices_values_and_reasons(tmp_path):
    start(tmp_path, automatic_config(), SIXTEEN_CHIPS)
    record = json.loads((tmp_path / "automatic.json").read_text())
    assert record["devices"]["kind"] == "TPU v5 lite"
    assert set(record["automatic_settings"]) == set(rules.RULES)
    assert all(one["reason"] for one in record["automatic_settings"].values())


def test_a_run_that_ended_before_its_first_step_chooses_again(tmp_path):
    """It may have ended because its batch does not fit in memory."""
    choice = automatic.choose_for_workdir(automatic_config(), SIXTEEN_CHIPS, str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(to_dict(choice.config)))
    again = automatic.choose_for_workdir(automatic_config(), SIXTEEN_CHIPS, str(tmp_path))
    assert again == choice and automatic.KEPT not in again.reasons.values()


# ---- kernels -------------------------------------------------------------------------------------------------


def test_a_kernel_that_fails_is_left_out_and_raises_one_alert(tmp_path, monkeypatch):
    def check_kernels(model, row_length, rows, *, tensor_shards):
        assert (row_length, rows, tensor_shards) == (16, 8, 1)
        return [
            KernelCheck("attention", "discriminator, dropout 0", 0.5, 0.01, "", 1.0),
            KernelCheck("attention", "discriminator, dropout 0.1", float("nan"), 0.01, "", 1.0),
            KernelCheck("residual_norm", "discriminator, dropout 0", 0.001, 0.01, "", 1.0),
        ]

    monkeypatch.setattr(automatic, "check_kernels", check_kernels)
    config = dataclasses.replace(small.config(16, kernels=ALL_KERNELS), batch_size=64)
    choice, failed = automatic.prove_kernels(Choice(config), sharding.make_mesh(config.mesh))
    assert choice.config.model.kernels == "gelu,residual_norm"
    assert choice.reasons["model.kernels"] == "without attention, which failed the comparison with the plain form"
    (alert,) = automatic.kernel_alerts(failed, 7)
    assert (alert.kind, alert.step) == ("kernel", 7) and "error 5.0e-01 of at most 1.0e-02" in alert.observation
    (tmp_path / "config.json").write_text(json.dumps(to_dict(choice.config)))
    automatic.record_choice(str(tmp_path), choice, SIXTEEN_CHIPS, [alert])
    automatic.record_choice(str(tmp_path), choice, SIXTEEN_CHIPS)  # a later start
    assert history.read_history(str(tmp_path)).kernel_alerts == [alert], "the report shows it"


def test_on_a_cpu_no_kernel_is_checked():
    config = dataclasses.replace(small.config(16), batch_size=64)
    assert automatic.prove_kernels(Choice(config), sharding.make_mesh(config.mesh)) == (Choice(config), [])


# ---- memory --------------------------------------------------------------------------------------------------


def compiler(bytes_of_a_row: dict[str, int]):
    """Returns a function that measures like a compiler that refuses programs above 16 GiB, and the forms it was asked for."""
    calls = []

    def measure(config: Config) -> MeasuredStep:
        calls.append((config.model.remat, config.batch_size))
        peak = GIB + config.batch_size * bytes_of_a_row[config.model.remat]
        return MeasuredStep("a program" if peak <= 16 * GIB else None, peak)

    return measure, calls


def with_remat(form: str) -> Choice:
    return Choice(automatic_config()).replace("model.remat", form, "estimated")


def test_the_first_form_that_fits_is_taken():
    measure, calls = compiler({"none": GIB, "dots": GIB // 2, "full": GIB // 8})
    choice, step = fit_remat(with_remat("none"), 16 * GIB, measure)
    assert choice.config.model.remat == "full" and step.compiled
    assert calls == [("none", 64), ("dots", 64), ("full", 64)]
    assert "9.00 of 16.00 GiB" in choice.reasons["model.remat"]


def test_forms_that_cannot_fit_are_not_compiled():
    measure, calls = compiler({"none": GIB, "dots": GIB // 8, "full": GIB // 16})
    choice, _ = fit_remat(with_remat("dots"), 16 * GIB, measure)
    assert choice.config.model.remat == "dots" and calls == [("dots", 64)]


def test_a_program_that_compiles_but_needs_more_than_the_device_has_does_not_fit():
    measure, _ = compiler({"none": GIB // 8, "dots": GIB // 16, "full": GIB // 32})
    assert fit_remat(with_remat("none"), 6 * GIB, measure)[0].config.model.remat == "dots"


def test_the_error_of_a_batch_that_fits_in_no_form_names_one_that_does():
    measure, _ = compiler({"none": 4 * GIB, "dots": 2 * GIB, "full": GIB})
    with pytest.raises(UserError) as caught:
        fit_remat(with_remat("none"), 16 * GIB, measure)
    assert str(caught.value) == (
        "batch_size=64 does not fit: with remat=full it needs 65.00 of 16.00 GiB a device by the compiler's analysis; "
        "batch_size=8 fits; or keep the batch with gradient_accumulation_steps=8 or more"
    )
    with pytest.raises(UserError, match="no smaller batch fits either"):
        fit_remat(with_remat("none"), GIB // 2, measure)


@pytest.mark.slow
def test_the_compiler_of_this_machine_decides(quick_compilation):
    """The step is compiled once, and the program that was measured is the one that trains."""
    config = automatic_config()
    devices = dataclasses.replace(automatic.detect_devices(), memory_bytes=8 * GIB)
    choice = rules.choose(config, devices)
    mesh = sharding.make_mesh(choice.config.mesh)
    with jax.set_mesh(mesh):
        choice, step = automatic.compile_train_step(choice, devices, mesh)
        assert choice.config.model.remat == "none" and "fastest form that fits" in choice.reasons["model.remat"]
        state = create(choice.config, mesh)
        batch = jax.device_put({"input_ids": jax.numpy.ones((64, 16), "int32")}, sharding.batch_sharding(mesh))
        state, sums = step(state, batch)
        assert int(state.step) == 1 and float(sums["step_count"]) == 1
    tiny = dataclasses.replace(devices, memory_bytes=2**16)
    with pytest.raises(UserError, match="does not fit: with remat=full"):
        automatic.compile_train_step(choice.replace("model.remat", "none", "estimated"), tiny, mesh)
