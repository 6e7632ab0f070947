"""Compiles the train step ahead of time for TPU topologies, without a TPU.

libtpu compiles for a topology by name on any machine; nothing runs. The result is what the compiler reports: whether
the step fits in memory, its operations and collectives (cost_model.py), and its estimated time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax

from electramed_jax.aot import chips, cost_model
from electramed_jax.aot.bundle_sizes import BundleSizes
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.config.pretrain import Config
from electramed_jax.model import flops
from electramed_jax.model.automatic import REMAT_FORMS, Choice, Devices, replace_setting
from electramed_jax.pretrain import automatic
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.training import sharding

# Bytes of parameters that could be sharded but are not, as a fraction of all. MaxText uses the same limit to detect a
# mistake in the sharding rules.
MAX_UNSHARDED_FRACTION = 0.02

# Takes a quarter of the compile time. Products and collectives are the same and memory is nearly the same, but the
# instructions differ, so that there is no time estimate.
QUICK_OPTIONS: dict[str, Any] = {"optimization_level": 9}  # XLA's O0; jax 0.10 takes the number alone


@dataclasses.dataclass(frozen=True)
class Topology:
    """The devices to compile for.

    Attributes:
      name: such as "v5e:4x4".
      chip: its TPU generation.
      devices: `jax.Device`s of all slices.
      num_slices: number of such topologies.
    """

    name: str
    chip: chips.Chip
    devices: list[Any]
    num_slices: int

    def describe_devices(self) -> Devices:
        """Returns what the rules of automatic settings need to know."""
        chip = self.chip
        return Devices("tpu", chip.device_kind, len(self.devices), chip.hbm_bytes, num_slices=self.num_slices)


@dataclasses.dataclass(frozen=True)
class CompiledStep:
    """A compiled train step of a config on a topology.

    Attributes:
      config: the resolved config.
      topology: compiled for.
      mesh: axis sizes by name.
      peak_bytes: HBM used on a chip, in bytes: state, batch, temporaries and the program itself.
      fits: whether `peak_bytes` are available.
      unsharded: see `sharding.unsharded_bytes`.
      parameter_bytes: bytes of all parameters.
      compile_seconds: duration of the compilation.
      cost: costs of the program; None if it does not fit.
    """

    config: Config
    topology: Topology
    mesh: dict[str, int]
    peak_bytes: int
    fits: bool
    unsharded: dict[str, int]
    parameter_bytes: int
    compile_seconds: float
    cost: cost_model.ProgramCost | None

    @property
    def rows_per_chip(self) -> float:
        """Rows of the batch divided by the number of chips; with mesh.tensor, several chips share their rows."""
        return self.config.batch_size / len(self.topology.devices)

    @property
    def unsharded_fraction(self) -> float:
        """Bytes of parameters that could be sharded but are not, as a fraction of all."""
        return sum(self.unsharded.values()) / self.parameter_bytes

    @property
    def model_flops(self) -> float:
        """Operations of the model per chip and step, computed from its sizes (model/flops.py)."""
        return flops.train_step_flops(self.config) / len(self.topology.devices)


def get_topology(name: str, num_slices: int = 1) -> Topology:
    """Returns `num_slices` topologies of a name such as "v5e:4x4".

    Raises:
      UserError: there is no such topology, or libtpu is not installed.
    """
    from jax.experimental import topologies

    chip, shape = chips.parse_topology(name)
    if num_slices < 1:
        raise UserError(f"num_slices={num_slices}: wanted 1 or more")
    options: dict[str, Any] = dict(chip.options)
    if num_slices > 1:
        options["num_slices"] = num_slices
    if chips.chip_count(shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        devices: list[Any] = list(topologies.get_topology_desc(name, "tpu", **options).devices)
    except (RuntimeError, ValueError) as error:  # jax's own error is a RuntimeError
        if "not installed" in str(error):
            raise UserError("the TPU compiler is not installed; pip install 'electramed_jax[tpu]'") from error
        raise UserError(f"topology {name!r}: rejected by the compiler ({first_line(error, 300)})") from error
    if devices[0].device_kind != chip.device_kind:
        raise UserError(f"topology {name!r}: got devices of kind {devices[0].device_kind}, wanted {chip.device_kind}")
    return Topology(name, chip, devices, num_slices)


def compile_step(
    config: Config, topology: Topology, *, quick: bool = False, bundle_sizes: BundleSizes | None = None
) -> CompiledStep:
    """Compiles `jit_train_step` for the sharded shapes of state and batch.

    Args:
      config: resolved; its mesh covers the topology, and its batch size divides over the mesh.
      topology: from `get_topology`.
      quick: compile with `QUICK_OPTIONS`.
      bundle_sizes: the dumps that this process was prepared for; without it, kernels count by their declared cost.

    Raises:
      UserError: the batch size does not divide, or the compiler fails for another reason than memory.
    """
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    began = time.monotonic()
    try:
        step = automatic.measure_step(config, mesh, QUICK_OPTIONS if quick else None)
    except RuntimeError as error:
        raise UserError(f"{topology.name}: compilation failed ({first_line(error, 300)})") from error
    cost = None
    if step.compiled is not None:
        text = step.compiled.as_text()
        assert text is not None, "libtpu and XLA:CPU return it"
        cost = cost_model.analyze(text, bundle_sizes.collect() if bundle_sizes else None)
    params, peak_bytes = abstract_state(config, mesh).params, step.peak_bytes
    fits = cost is not None and peak_bytes <= topology.chip.hbm_bytes
    return CompiledStep(
        config=config,
        topology=topology,
        mesh=dict(mesh.shape),
        peak_bytes=peak_bytes,
        fits=fits,
        unsharded=sharding.unsharded_bytes(params, mesh),
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
        compile_seconds=time.monotonic() - began,
        cost=cost if fits else None,
    )


def compile_fastest_form(
    choice: Choice, topology: Topology, *, quick: bool = False, bundle_sizes: BundleSizes | None = None
) -> tuple[Choice, CompiledStep]:
    """Compiles the first form of rematerialization, from the chosen one on, that fits; the last one if none does.

    A form that the config names is the only one. See `compile_step` for the other arguments.
    """
    first = choice.config.model.remat
    forms = REMAT_FORMS[REMAT_FORMS.index(first) :] if "model.remat" in choice.reasons else (first,)
    for form in forms:
        config = replace_setting(choice.config, "model.remat", form)
        compiled = compile_step(config, topology, quick=quick, bundle_sizes=bundle_sizes)
        if compiled.fits:
            break
    if "model.remat" in choice.reasons:
        reason = "the fastest form that fits" if compiled.fits else "the form that needs the least memory"
        choice = choice.replace("model.remat", form, f"{reason}, by the compiler's memory analysis")
    return choice, compiled


# ---- the largest batch that fits -------------------------------------------------------------------


def find_batch(
    config: Config,
    topology: Topology,
    *,
    quick: bool = False,
    bundle_sizes: BundleSizes | None = None,
    on_attempt: Callable[[CompiledStep], None] = lambda compiled: None,
) -> CompiledStep:
    """Searches the largest batch size that fits, with a resolution of 1/32.

    Memory is nearly a linear function of the rows: each attempt is where the line through two earlier ones crosses the
    limit. The batch size is a multiple of data × fsdp.

    Args:
      config: resolved; its batch size is the first attempt.
      topology: from `get_topology`.
      quick: compile the result with `QUICK_OPTIONS`, too, not only the attempts.
      bundle_sizes: see `compile_step`.
      on_attempt: called with each attempt.

    Returns:
      The step with the largest batch size that fits, or the step with the smallest batch size if none does.
    """
    mesh = sharding.make_mesh(config.mesh, topology.devices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def compile_with(rows: int, quick: bool) -> CompiledStep:
        resized = dataclasses.replace(config, batch_size=rows * shards)
        return compile_step(resized, topology, quick=quick, bundle_sizes=bundle_sizes)

    peak_bytes: dict[int, int] = {}  # by rows per shard
    low, high, rows = 0, None, max(1, config.batch_size // shards)  # `low` fits, `high` does not
    while high is None or high - low > max(1, low // 32):
        compiled = compile_with(rows, quick=True)
        on_attempt(compiled)
        peak_bytes[rows] = compiled.peak_bytes
        low, high = (rows, high) if compiled.fits else (low, rows)
        rows = _next_guess(peak_bytes, topology.chip.hbm_bytes, low, high)
    rows = max(1, low)
    compiled = compile_with(rows, quick)
    while not compiled.fits and rows > 1:  # a full compilation may need a little more memory than a quick one
        on_attempt(compiled)
        rows -= max(1, rows // 32)
        compiled = compile_with(rows, quick)
    return compiled


def _next_guess(peak_bytes: dict[int, int], limit: int, low: int, high: int | None) -> int:
    """Returns the rows at which the line through the two measurements nearest to the limit crosses it.

    The result is kept between the bounds `low` and `high`.
    """
    nearest = sorted(peak_bytes, key=lambda rows: abs(peak_bytes[rows] - limit))[:2]
    if len(nearest) == 2 and peak_bytes[nearest[0]] != peak_bytes[nearest[1]]:
        a, b = nearest
        guess = int(a + (limit - peak_bytes[a]) * (b - a) / (peak_bytes[b] - peak_bytes[a]))
    else:
        guess = 4 * nearest[0] if high is None else nearest[0] // 2
    step = max(1, low // 32)
    ceiling = 64 * max(low, 1) if high is None else high - step
    return max(low + step, min(guess, ceiling))


# ---- time estimate -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TimeEstimate:
    """Estimated time of a step on one chip.

    Attributes:
      seconds: by group; "collectives" are those that no computation hides.
      bandwidth_seconds: the part of `seconds` without a cycle estimate of the compiler: bytes over the bandwidth of HBM
        or of the links, and kernels by the longest of their code, their operations and their bytes.
      utilization: operations of the model divided by those that the chip could do in this time.
    """

    seconds: dict[str, float]
    bandwidth_seconds: float
    utilization: float

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())


def estimate_time(compiled: CompiledStep) -> TimeEstimate:
    """Estimates the time of a step that fits and was not compiled with `QUICK_OPTIONS`."""
    chip, cost = compiled.topology.chip, compiled.cost
    assert cost is not None, "does not fit"
    seconds = {group: cost.cycles.get(group, 0.0) / chip.clock for group in cost_model.GROUPS}
    compiler_seconds = sum(seconds.values())
    for group, moved in cost.unestimated_bytes.items():
        seconds[group] += moved / chip.hbm_bandwidth
    for kernel in cost.kernels:
        by_memory, by_products = kernel.bytes / chip.hbm_bandwidth, (kernel.flops or 0) / chip.peak_flops
        by_code = (kernel.cycles or 0) / chip.clock / chip.cores_per_device  # a grid is split over the cores
        seconds[kernel.group] += kernel.times * max(by_memory, by_products, by_code)
    sent = sum(collective.exposed_link_bytes for collective in cost.collectives.values())
    seconds["collectives"] = sent / chip.link_bandwidth
    total = sum(seconds.values())
    return TimeEstimate(seconds, total - compiler_seconds, compiled.model_flops / total / chip.peak_flops)
