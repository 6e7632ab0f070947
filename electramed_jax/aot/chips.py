"""TPU generations: memory, bandwidths and clock of a chip, and the names of topologies.

Sources. `hbm_bandwidth`, `link_bandwidth`, units and peak rates (model/flops.py): the pages v4, v5e, v5p and v6e of
cloud.google.com/tpu/docs. `hbm_bytes`: what libtpu 0.0.42.1 reports as available if a program does not fit; the system
uses a part of the memory in the data sheet. `clock`: the peak rate divided by the operations per cycle of the matrix
units, with 2 operations per multiply-add: 2 cores x 4 units of 128 x 128 on v4 and v5p, 1 x 4 on v5e, and 4 of
256 x 256 on v6e. The compiler estimates a large bfloat16 product at 88 to 93 % of those operations per cycle (v6e:
70 %).
"""

from __future__ import annotations

import dataclasses
import math
import os
import re

from electramed_jax.common.errors import UserError
from electramed_jax.model import flops

GIB = 2**30

# Lets libtpu compile without a chip: it does not search for one, take its lock or query host names.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # required, but does not affect the topology to compile for
}
# The search for convolution algorithms for v6e overflows the default stack of about 64 KiB.
COMPILER_FLAGS = "--default_thread_stack_size=4194304 --fibers_default_thread_stack_size=4194304"

SHAPES_2D = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")  # all available shapes
SHAPES_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")  # the common shapes up to 256 chips


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation; a chip is one device.

    Attributes:
      name: prefix of topology names, such as "v5e".
      device_kind: JAX's `device_kind`.
      hbm_bytes: memory available to a program, in bytes.
      hbm_bandwidth: bytes per second.
      clock: cycles per second.
      link_bandwidth: bytes per second that a chip can send over all its links.
      dimensions: dimensions of the torus.
      cores: cores per chip that product names count: v4-32 has 16 chips of two cores.
      options: topology options that make the compiler treat a chip as one device.
    """

    name: str
    device_kind: str
    hbm_bytes: int
    hbm_bandwidth: float
    clock: float
    link_bandwidth: float
    dimensions: int
    cores: int = 1
    options: tuple[tuple[str, str], ...] = ()

    @property
    def peak_flops(self) -> float:
        """Peak bfloat16 operations per second."""
        return flops.PEAK_FLOPS[self.device_kind]

    @property
    def shapes(self) -> tuple[str, ...]:
        """The shapes of its topologies, by increasing size."""
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
    """Returns the chip of a topology such as "v5e:4x4".

    Raises:
      UserError: there is no such topology; lists the valid names.
    """
    match = re.fullmatch(r"(v\d+[a-z]*):(\d+(?:x\d+)*)", name)
    if match is None or match[1] not in CHIPS:
        known = ", ".join(f"{chip.name}:{chip.shapes[2]}" for chip in CHIPS.values())
        raise UserError(
            f"topology {name!r}: wanted a generation and the chips along each side, such as {known}{_suggestion(name)}"
        )
    chip, shape = CHIPS[match[1]], match[2]
    if len(shape.split("x")) != chip.dimensions or (chip.dimensions == 2 and shape not in chip.shapes):
        raise UserError(f"topology {name!r}: {chip.name} has the shapes {', '.join(chip.shapes)}")
    return chip


def _suggestion(name: str) -> str:
    """Returns the topology of an accelerator type ("v5litepod-16", "v4-32"), which counts chips or cores; else ""."""
    match = re.fullmatch(r"(v\d+[a-z]*)-(\d+)", name.replace("v5litepod", "v5e"))
    if match is None or match[1] not in CHIPS:
        return ""
    chip = CHIPS[match[1]]
    for shape in chip.shapes:
        if chip_count(shape) * chip.cores == int(match[2]):
            return f"; {name} is {chip.name}:{shape}"
    return f"; {chip.name} has the shapes {', '.join(chip.shapes)}"


def chip_count(shape: str) -> int:
    """Returns the number of chips of a shape such as "4x4"."""
    return math.prod(int(side) for side in shape.split("x"))


def prepare_environment(flags: str = "") -> None:
    """Configures this process for compilation only, with more flags for libtpu. Call it before jax is imported."""
    os.environ.update(ENVIRONMENT)
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {COMPILER_FLAGS} {flags}".strip()
