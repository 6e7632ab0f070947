"""The real train step, compiled ahead of time for TPUs that are not here.

libtpu compiles for a topology by name on any machine; nothing runs. What comes back is what the compiler knows: whether
the step fits, what is in it (program.py), and how long it reckons it takes.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from electramed_jax.aot import chips
from electramed_jax.aot import cost_model as program
from electramed_jax.aot.bundle_sizes import Schedules
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.loader import check_batch_size
from electramed_jax.model import flops
from electramed_jax.pretrain.state import abstract_state
from electramed_jax.pretrain.step import jit_train_step
from electramed_jax.training import sharding

# Parameters that could be split but aren't, as a part of all: what MaxText, too, takes for a mistake in the rules.
MAX_WHOLE_FRACTION = 0.02

# The compiler's least effort: a quarter of the time, the same products and collectives and nearly the same memory, but
# not the same instructions, so no estimate of time.
LEAST_EFFORT = {"exec_time_optimization_effort": -1.0}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for."""

    name: str
    chip: chips.Chip
    devices: list[Any]
    num_slices: int


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler says of one step of a config on a topology."""

    config: Config
    topology: Topology
    mesh: dict[str, int]
    needed_bytes: int  # of HBM on a chip: state, batch, temporaries and the program itself
    fits: bool
    whole: dict[str, int]  # see `sharding.needlessly_whole`
    parameter_bytes: int
    seconds: float  # it took to compile
    program: program.Program | None  # None where it doesn't fit

    @property
    def rows_per_chip(self) -> float:
        """Rows of the batch over chips; with mesh.tensor, several chips work on the same rows."""
        return self.config.batch_size / len(self.topology.devices)

    @property
    def whole_fraction(self) -> float:
        return sum(self.whole.values()) / self.parameter_bytes

    @property
    def model_flops(self) -> float:
        """One chip's part of the operations counted from the sizes (model/flops.py)."""
        return flops.train_step_flops(self.config) / len(self.topology.devices)


def topology(name: str, num_slices: int = 1) -> Topology:
    """The devices of `name`, such as "v5e:4x4", times `num_slices`.

    Raises:
      UserError: no such topology, or no libtpu.
    """
    from jax.experimental import topologies

    chip = chips.parse_topology(name)
    if num_slices < 1:
        raise UserError(f"num_slices={num_slices}: wanted 1 or more")
    options = dict(chip.options) | ({"num_slices": num_slices} if num_slices > 1 else {})
    try:
        devices = topologies.get_topology_desc(name, "tpu", **options).devices
    except (RuntimeError, ValueError) as error:  # jax's own error is a RuntimeError
        if "not installed" in str(error):
            raise UserError("the TPU compiler is not installed; pip install 'electramed_jax[tpu]'") from error
        raise UserError(f"topology {name!r}: the compiler refuses it ({first_line(error, 300)})") from error
    if devices[0].device_kind != chip.device_kind:
        raise UserError(f"topology {name!r}: libtpu makes it {devices[0].device_kind}, wanted {chip.device_kind}")
    return Topology(name, chip, devices, num_slices)


def compile_step(
    config: Config, where: Topology, *, quick: bool = False, schedules: Schedules | None = None
) -> Compiled:
    """Compiles `step.jit_train_step` with the state and the batch in their shardings.

    Args:
      config: resolved; its mesh has to cover the topology and its batch to divide over it.
      quick: with the compiler's least effort; see `LEAST_EFFORT`.
      schedules: that the process was prepared with; without, kernels count by what they declare.
    """
    mesh = sharding.make_mesh(config.mesh, where.devices)
    rows = sharding.batch_sharding(mesh)
    check_batch_size(config.batch_size, rows)
    began = time.monotonic()
    with jax.set_mesh(mesh):
        state = abstract_state(config, mesh)
        shape = (config.batch_size, config.data.max_seq_length)
        batch = {"input_ids": jax.ShapeDtypeStruct(shape, jnp.int32, sharding=rows)}
        lowered = jit_train_step(config, mesh).lower(state, batch)
    contents = None
    try:
        compiled = lowered.compile(compiler_options=LEAST_EFFORT if quick else None)
    except RuntimeError as error:
        needed = out_of_memory(str(error))
        if needed is None:
            raise UserError(f"{where.name}: the compiler gave up ({first_line(error, 300)})") from error
    else:
        memory = compiled.memory_analysis()
        needed = memory.peak_memory_in_bytes + memory.generated_code_size_in_bytes
        contents = program.read(compiled.as_text(), schedules.take() if schedules else None)
    fits = contents is not None and needed <= where.chip.hbm_bytes
    return Compiled(
        config=config,
        topology=where,
        mesh=dict(mesh.shape),
        needed_bytes=needed,
        fits=fits,
        whole=sharding.unsharded_bytes(state.params, mesh),
        parameter_bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params)),
        seconds=time.monotonic() - began,
        program=contents if fits else None,
    )


def out_of_memory(message: str) -> int | None:
    """Bytes a program would need, from the compiler's complaint that they are too many; None for other complaints."""
    size = r"([\d.]+)([KMGT]?)"
    for pattern in (rf"\({size}\) exceeds available HBM", rf"Used {size} of [\d.]+[KMGT]? hbm"):
        if found := re.search(pattern, message):
            return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))
    return None


# ---- the largest batch that fits -------------------------------------------------------------------


def find_batch(
    config: Config,
    where: Topology,
    *,
    quick: bool = False,
    schedules: Schedules | None = None,
    tried: Callable[[Compiled], None] = lambda compiled: None,
) -> Compiled:
    """The step with the largest batch that fits, up to a thirty-second of it; one that doesn't where none does.

    Memory grows nearly in proportion to the rows, so the line through two compilations says where to look next. The
    batch is a multiple of data × fsdp.

    Args:
      quick: take the compiler's least effort for the answer, too, not for the search alone.
      tried: called with each compilation of the search.
    """
    mesh = sharding.make_mesh(config.mesh, where.devices)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]

    def compiled_with(rows: int, quick: bool) -> Compiled:
        return compile_step(
            dataclasses.replace(config, batch_size=rows * shards), where, quick=quick, schedules=schedules
        )

    known: dict[int, int] = {}  # rows of a shard -> bytes needed
    low, high, rows = 0, None, max(1, config.batch_size // shards)  # `low` fits, `high` does not
    while high is None or high - low > max(1, low // 32):
        found = compiled_with(rows, quick=True)
        tried(found)
        known[rows] = found.needed_bytes
        low, high = (rows, high) if found.fits else (low, rows)
        rows = _next_guess(known, where.chip.hbm_bytes, low, high)
    rows = max(1, low)
    found = compiled_with(rows, quick)
    while not found.fits and rows > 1:  # in full it may need a little more than quickly compiled
        tried(found)
        rows -= max(1, rows // 32)
        found = compiled_with(rows, quick)
    return found


def _next_guess(known: dict[int, int], limit: int, low: int, high: int | None) -> int:
    """Rows where the line through the two measurements nearest to the limit crosses it, kept between the bounds."""
    nearest = sorted(known, key=lambda rows: abs(known[rows] - limit))[:2]
    if len(nearest) == 2 and known[nearest[0]] != known[nearest[1]]:
        (a, b) = nearest
        guess = int(a + (limit - known[a]) * (b - a) / (known[b] - known[a]))
    else:
        guess = 4 * nearest[0] if high is None else nearest[0] // 2
    step = max(1, low // 32)
    ceiling = 64 * max(low, 1) if high is None else high - step
    return max(low + step, min(guess, ceiling))


# ---- the compiler's estimate of time -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Estimate:
    """How long a step takes on one chip, by the compiler's cycles, and by bandwidth where it says nothing."""

    seconds: dict[str, float]  # by group; "collectives" are those that nothing hides
    by_bandwidth: float  # seconds among them that are not the compiler's: bytes over HBM's or the links' bandwidth,
    # and kernels by the longest of their code, their operations and their bytes
    utilization: float  # the model's operations over those the chip could do in this time

    @property
    def step_seconds(self) -> float:
        return sum(self.seconds.values())


def estimate(compiled: Compiled) -> Estimate:
    """The time of `compiled`, which has to fit and not to have been compiled quickly."""
    chip, contents = compiled.topology.chip, compiled.program
    assert contents is not None
    seconds = {group: contents.cycles[group] / chip.clock for group in program.GROUPS}
    stated = sum(seconds.values())
    for group, moved in contents.unestimated_bytes.items():
        seconds[group] += moved / chip.hbm_bandwidth
    for kernel in contents.kernels:
        by_memory, by_products = kernel.bytes / chip.hbm_bandwidth, (kernel.flops or 0) / chip.peak_flops
        by_code = (kernel.cycles or 0) / chip.clock
        seconds[kernel.group] += kernel.times * max(by_memory, by_products, by_code)
    sent = sum(one.exposed_link_bytes for one in contents.collectives.values())
    seconds["collectives"] = sent / chip.link_bandwidth
    total = sum(seconds.values())
    return Estimate(seconds, total - stated, compiled.model_flops / total / chip.peak_flops)
