"""TPU generations: what a program may use of a chip, and how topologies are named.

Sources. `hbm_bandwidth`, `link_bandwidth`, units and peak rates (model/flops.py): the pages v4, v5e, v5p and v6e of
cloud.google.com/tpu/docs. `hbm_bytes`: what libtpu 0.0.42.1 names as available when a program does not fit; some of
the data sheet's memory is the system's. `clock`: the peak rate over the operations the matrix units do in a cycle,
two a multiply-add: 2 cores x 4 units of 128 x 128 on v4 and v5p, 1 x 4 on v5e, and 4 of 256 x 256 on v6e. A large
bfloat16 product is estimated by the compiler at 88 to 93 % of those operations a cycle (v6e: 70 %).
"""

from __future__ import annotations

import dataclasses
import os
import re

from electramed_jax.common.errors import UserError
from electramed_jax.model import flops

GIB = 2**30

# The compiler without a chip: no search for one, no lock that one process holds, no names of hosts asked for.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # of the host that isn't there; says nothing of the topology
}
# Its search among convolutions for v6e overflows the 64 KiB or so that its threads have by default.
COMPILER_FLAGS = "--default_thread_stack_size=4194304 --fibers_default_thread_stack_size=4194304"

SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # all there are
SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")  # the usual ones up to 256 chips


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU generation, a chip seen as one device."""

    name: str  # as topologies are called, "v5e"
    device_kind: str  # as jax calls it
    hbm_bytes: int
    hbm_bandwidth: float  # bytes a second
    clock: float  # cycles a second
    link_bandwidth: float  # bytes a second that a chip can send to its neighbours, over all its links
    dimensions: int  # of the torus
    cores: int = 1  # of the product's number: v4-32 is 16 chips of two cores
    options: tuple[tuple[str, str], ...] = ()  # what the compiler has to be told to see a chip as one device

    @property
    def peak_flops(self) -> float:
        return flops.PEAK_FLOPS[self.device_kind]

    @property
    def shapes(self) -> tuple[str, ...]:
        return SHAPES_2D if self.dimensions == 2 else SHAPES_3D


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4", "TPU v4", int(30.75 * GIB), 1200e9, 275e12 / 2**18, 300e9, 3, 2, (("chip_config_name", "megacore"),)
        ),
        Chip("v5e", "TPU v5 lite", int(15.75 * GIB), 819e9, 197e12 / 2**17, 200e9, 2),
        Chip("v5p", "TPU v5", int(95.74 * GIB), 2765e9, 459e12 / 2**18, 600e9, 3, 2),
        Chip("v6e", "TPU v6 lite", int(31.25 * GIB), 1600e9, 918e12 / 2**19, 400e9, 2),
    )
}


def parse_topology(name: str) -> Chip:
    """The chip of a topology such as "v5e:4x4"; a UserError says which names there are."""
    found = re.fullmatch(r"(v\d+[a-z]*):(\d+(?:x\d+)*)", name)
    chip = CHIPS.get(found[1]) if found else None
    if chip is None:
        known = ", ".join(f"{chip.name}:{chip.shapes[2]}" for chip in CHIPS.values())
        raise UserError(
            f"topology {name!r}: wanted a generation and the chips along each side, such as {known}{_meant(name)}"
        )
    sides = found[2].split("x")
    if len(sides) != chip.dimensions or (chip.dimensions == 2 and found[2] not in chip.shapes):
        raise UserError(f"topology {name!r}: {chip.name} has the shapes {', '.join(chip.shapes)}")
    return chip


def _meant(name: str) -> str:
    """A hint for an accelerator type ("v5litepod-16", "v4-32"), which counts chips or cores."""
    found = re.fullmatch(r"(v\d+[a-z]*)-(\d+)", name.replace("v5litepod", "v5e"))
    chip = CHIPS.get(found[1]) if found else None
    if chip is None:
        return ""
    for shape in chip.shapes:
        if chip_count(shape) * chip.cores == int(found[2]):
            return f"; {name} is {chip.name}:{shape}"
    return f"; {chip.name} has the shapes {', '.join(chip.shapes)}"


def chip_count(shape: str) -> int:
    count = 1
    for side in shape.split("x"):
        count *= int(side)
    return count


def prepare_environment(flags: str = "") -> None:
    """Makes this process one that only compiles, with more flags for libtpu; to be called before jax is imported."""
    os.environ.update(ENVIRONMENT)
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {COMPILER_FLAGS} {flags}".strip()
