"""The automatic settings of a run: its devices, the record in the workdir, and the memory that the compiler reports.

model/automatic.py has the rules. config.json of the workdir holds the chosen values and automatic.json the reasons. A
resumed run keeps the values, even if a later version has other rules; on other devices it chooses again, except
settings that change the numbers.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from electramed_jax.common.config_io import AUTO
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import KERNELS, Config
from electramed_jax.data.dataset.loader import check_batch_size
from electramed_jax.model import automatic
from electramed_jax.model.automatic import Choice, Devices, get_setting, replace_setting
from electramed_jax.model.kernel_check import KernelCheck, check_kernels
from electramed_jax.pretrain.alerts import Alert
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.step import jit_train_step
from electramed_jax.pretrain.workdir import (
    AUTOMATIC_FILE,
    CONFIG_FILE,
    has_checkpoints,
    read_config,
    read_kernel_alerts,
)
from electramed_jax.training import sharding

FIRST_BFLOAT16_CAPABILITY = 8.0  # NVIDIA's Ampere
CPU_BFLOAT16 = re.compile(r"\b(avx512_bf16|amx_bf16)\b")  # flags in /proc/cpuinfo
KEPT = "kept from the start of the run"
MIB = 2**20


# ---- devices ---------------------------------------------------------------------------------------------


def detect_devices() -> Devices:
    """Returns what the rules need to know about the devices of all processes. All processes must call it."""
    first = jax.local_devices()[0]
    platform = "rocm" if first.device_kind.startswith(("AMD", "gfx")) else first.platform
    memory = min(distributed.allgather(_memory_bytes(first) // MIB)) * MIB
    return Devices(
        platform=platform,
        kind=first.device_kind,
        count=jax.device_count(),
        memory_bytes=memory,
        num_slices=len({getattr(device, "slice_index", None) for device in jax.devices()}),
        has_bfloat16=_has_bfloat16(platform, first),
    )


def _memory_bytes(device: jax.Device) -> int:
    """Returns the memory that a program may use on a device; of a CPU device, its share of the host's memory."""
    stats = device.memory_stats() or {}
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return stats.get("bytes_limit") or host // jax.local_device_count()


def _has_bfloat16(platform: str, device: jax.Device) -> bool:
    if platform == "gpu":
        return float(getattr(device, "compute_capability", 0)) >= FIRST_BFLOAT16_CAPABILITY
    return platform != "cpu" or cpu_has_bfloat16()


def cpu_has_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
    """Returns whether this processor has instructions for products in bfloat16: AVX-512 BF16 or AMX."""
    try:
        return bool(CPU_BFLOAT16.search(pathlib.Path(cpuinfo).read_text(encoding="utf-8", errors="replace")))
    except OSError:  # another operating system than Linux
        return False


# ---- choice and record -------------------------------------------------------------------------------------


def choose_for_workdir(config: Config, devices: Devices, workdir: str) -> Choice:
    """Returns the choice for a run in this workdir: the earlier values of a resumed run, and new ones otherwise."""
    has_trained = files.exists(files.join(workdir, AUTOMATIC_FILE)) or has_checkpoints(workdir)
    if not has_trained or not files.exists(files.join(workdir, CONFIG_FILE)):
        return automatic.choose(config, devices)
    earlier, choice = read_config(workdir), Choice(config)
    same_devices = _recorded_devices(workdir) in (None, dataclasses.asdict(devices) | {"memory_bytes": None})
    for name in automatic.RULES:
        if get_setting(config, name) != AUTO:
            continue
        value = get_setting(earlier, name)
        if name in automatic.NUMERIC_SETTINGS or (same_devices and _covers(earlier, devices)):
            choice = choice.replace(name, value, KEPT)
    again = automatic.choose(choice.config, devices)
    return Choice(again.config, choice.reasons | again.reasons)


def _covers(earlier: Config, devices: Devices) -> bool:
    """Returns whether the mesh of an earlier start fits the devices of this one."""
    mesh = earlier.mesh
    assert mesh.fsdp != AUTO, "config.json holds chosen values"
    return devices.count % (mesh.fsdp * mesh.tensor * max(1, mesh.data)) == 0


def _recorded_devices(workdir: str) -> Any:
    """Returns the devices in automatic.json without their memory, which varies; None for workdirs without that file."""
    path = files.join(workdir, AUTOMATIC_FILE)
    return files.read_json(path)["devices"] | {"memory_bytes": None} if files.exists(path) else None


def record_choice(workdir: str, choice: Choice, devices: Devices, alerts: Sequence[Alert] = ()) -> None:
    """Writes automatic.json: the devices, value and reason of each chosen setting, and alerts about kernels."""
    if distributed.is_main() and (choice.reasons or alerts):
        both = [*read_kernel_alerts(workdir), *(alert.to_json() for alert in alerts)]
        record = {"devices": dataclasses.asdict(devices), "kernel_alerts": both} | choice.to_json()
        files.write_json(files.join(workdir, AUTOMATIC_FILE), record)


# ---- kernels ---------------------------------------------------------------------------------------------


def prove_kernels(choice: Choice, mesh: Mesh) -> tuple[Choice, list[KernelCheck]]:
    """Compares each kernel of the run with its plain form on a device of each process, before the run uses it.

    Returns:
      the choice without the kernels that differ or do not run in any process, and the failed checks of this process.
    """
    config = choice.config
    parts = mesh.shape["data"] * mesh.shape["fsdp"] * config.gradient_accumulation_steps
    checks = check_kernels(
        config.model, config.data.max_seq_length, max(1, config.batch_size // parts), tensor_shards=mesh.shape["tensor"]
    )
    for check in checks:
        log_main(str(check))
    failed = [check for check in checks if not check.is_equal]
    bits = sum(2**i for i, name in enumerate(KERNELS) if name in {check.kernel for check in failed})
    wrong = {name for found in distributed.allgather(bits) for i, name in enumerate(KERNELS) if found >> i & 1}
    if wrong:
        left = [name for name in KERNELS if config.model.uses_kernel(name) and name not in wrong]
        reason = f"without {', '.join(sorted(wrong))}, which failed the comparison with the plain form"
        choice = choice.replace("model.kernels", ",".join(left) or "none", reason)
    return choice, failed


def kernel_alerts(failed: Sequence[KernelCheck], step: int) -> list[Alert]:
    """Returns one alert for each kernel with failed checks, about the first of them."""
    first = {check.kernel: check for check in reversed(failed)}
    meaning = "the run uses the plain form instead, which is slower"
    advice = "electramed doctor on each host; another version of jax or of the device's driver"
    return [Alert("kernel", step, str(check), meaning, advice) for check in first.values()]


# ---- memory ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MeasuredStep:
    """A compiled train step, and the bytes that it needs on a device; without a program if the compiler refused it."""

    compiled: jax.stages.Compiled | None
    peak_bytes: int


def measure_step(config: Config, mesh: Mesh, compiler_options: dict[str, Any] | None = None) -> MeasuredStep:
    """Compiles the train step for the sharded shapes of state and batch.

    Raises:
      UserError: the batch size does not divide over the mesh.
      RuntimeError: the compiler fails for another reason than memory.
    """
    rows = sharding.batch_sharding(mesh)
    check_batch_size(config.batch_size, rows)
    with jax.set_mesh(mesh):
        shape = (config.batch_size, config.data.max_seq_length)
        batch = {"input_ids": jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)}
        lowered = jit_train_step(config, mesh).lower(abstract_state(config, mesh), batch)
    try:
        compiled = lowered.compile(compiler_options=compiler_options)
    except RuntimeError as error:
        peak_bytes = parse_out_of_memory(str(error))
        if peak_bytes is None:
            raise
        return MeasuredStep(None, peak_bytes)
    memory = compiled.memory_analysis()
    assert memory is not None, "libtpu, XLA:GPU and XLA:CPU return it"
    return MeasuredStep(compiled, memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes)


def parse_out_of_memory(message: str) -> int | None:
    """Returns the bytes that a program needs, from the compiler's out-of-memory error; None for other errors."""
    size = r"([\d.]+)([KMGT]?)"
    for pattern in (rf"\({size}\) exceeds available HBM", rf"Used {size} of [\d.]+[KMGT]? hbm"):
        if found := re.search(pattern, message):
            return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))
    return None


def compile_train_step(choice: Choice, devices: Devices, mesh: Mesh) -> tuple[Choice, Callable[..., Any]]:
    """Returns the choice, with the form of rematerialization that fits, and the train step.

    The step is compiled here if `model.remat` is automatic, and at its first call otherwise. A resumed run compiles it
    in the same way as the run's first start, so that it finds the program in the compilation cache.

    Raises:
      UserError: the batch fits in no form.
    """
    reason = choice.reasons.get("model.remat")
    if reason is None or reason == KEPT:
        step = measure_step(choice.config, mesh) if reason == KEPT else MeasuredStep(None, 0)
        return choice, step.compiled or jit_train_step(choice.config, mesh)
    choice, step = fit_remat(choice, devices.memory_bytes, lambda config: measure_step(config, mesh))
    assert step.compiled is not None, "it fits"
    return choice, step.compiled


def fit_remat(
    choice: Choice, memory_bytes: int, measure: Callable[[Config], MeasuredStep]
) -> tuple[Choice, MeasuredStep]:
    """Returns the choice with the first form of rematerialization, from the chosen one on, that fits, and its step.

    Args:
      choice: its `model.remat` was chosen.
      memory_bytes: of a device.
      measure: compiles the step of a config.

    Raises:
      UserError: the batch fits in no form; names a batch size that does.
    """
    first = automatic.REMAT_FORMS.index(choice.config.model.remat)
    for form in automatic.REMAT_FORMS[first:]:
        step = measure(replace_setting(choice.config, "model.remat", form))
        needed = f"{_gib(step.peak_bytes)} of {_gib(memory_bytes)} GiB a device by the compiler's analysis"
        if step.compiled is not None and step.peak_bytes <= memory_bytes:
            return choice.replace("model.remat", form, f"the fastest form that fits: {needed}"), step
    config = replace_setting(choice.config, "model.remat", form)
    advice = _advice(config, memory_bytes, measure)
    raise UserError(f"batch_size={config.batch_size} does not fit: with remat={form} it needs {needed}; {advice}")


def _advice(config: Config, memory_bytes: int, measure: Callable[[Config], MeasuredStep]) -> str:
    """Returns the advice: the first half, quarter, ... of the batch that fits by the compiler's analysis."""
    parts = 1
    while config.batch_size % (2 * parts) == 0:
        parts *= 2
        smaller = dataclasses.replace(config, batch_size=config.batch_size // parts)
        try:
            step = measure(smaller)
        except UserError:  # the mesh does not divide the batch any more
            break
        if step.compiled is not None and step.peak_bytes <= memory_bytes:
            size = smaller.batch_size
            return f"batch_size={size} fits; or keep the batch with gradient_accumulation_steps={parts} or more"
    return "no smaller batch fits either; use more devices or a smaller model"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f}"
