"""TPU generations and slices: speed and memory of a device, shapes of slices, and their names on Google Cloud.

One table for `electramed compile` and the launchers: `launch/tpu_slices.txt` is generated from it, for shell scripts on
machines without Python (`python tests/support/tpu_slices.py` writes it, a test compares).

Sources. `hbm_bandwidth`, `link_bandwidth`, units and peak rates (model/flops.py): the pages v4, v5e, v5p, v6e and tpu7x
of cloud.google.com/tpu/docs. `hbm_bytes`: what libtpu 0.0.42.1 reports as available if a program does not fit; the
system uses a part of the memory in the data sheet. `clock`: the peak rate divided by the operations per cycle of the
matrix units, with 2 operations per multiply-add: 2 cores x 4 units of 128 x 128 on v4 and v5p, 1 x 4 on v5e, and 4 of
256 x 256 on v6e and each core of tpu7x. The compiler estimates a large bfloat16 product at 88 to 93 % of those
operations per cycle (v6e: 70 %, tpu7x: 81 %). Shapes, machine types and labels: "Plan TPUs in GKE" and "TPU machine
types" in the documentation of Google Cloud. Images: cloud.google.com/tpu/docs/runtimes, and for Compute Engine the
families of the project ubuntu-os-accelerator-images.
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

# Real slices: all of the two-dimensional generations; of the three-dimensional ones those up to 1,024 chips, one shape
# for each number of chips.
SHAPES_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
SHAPES_V4 = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x12", "8x8x16")
SHAPES_3D = (
    *("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x4x12", "4x8x8", "4x4x20", "4x8x12", "4x4x28", "8x8x8"),
    *("4x12x12", "4x8x20", "4x4x44", "8x8x12", "4x4x52", "4x8x28", "4x12x20", "8x8x16"),
)


@dataclasses.dataclass(frozen=True)
class Chip:
    """A TPU generation. Memory, rates and bandwidths are those of a JAX device: a chip; on tpu7x one of its two cores.

    Attributes:
      name: prefix of topology names, such as "v5e".
      device_kind: JAX's `device_kind`.
      hbm_bytes: memory available to a program, in bytes.
      hbm_bandwidth: bytes per second.
      clock: cycles per second.
      link_bandwidth: bytes per second that a device can send over all its links.
      shapes: real slices, by increasing size.
      product: prefix of accelerator types, such as "v5litepod" of v5litepod-16.
      machine: prefix of machine types: ct5lp-hightpu-4t has four chips.
      gke_accelerator: GKE's label.
      runtime: image of the Cloud TPU API; "-" if the API does not have this generation.
      image_family: image of Compute Engine; "-" if Compute Engine does not have this generation.
      cores: cores per chip: accelerator types count them where there are two (v4-32 has 16 chips).
      devices: JAX devices per chip.
      options: topology options that make the compiler treat a chip as one device.
    """

    name: str
    device_kind: str
    hbm_bytes: int
    hbm_bandwidth: float
    clock: float
    link_bandwidth: float
    shapes: tuple[str, ...]
    product: str
    machine: str
    gke_accelerator: str
    runtime: str = "-"
    image_family: str = "-"
    cores: int = 1
    devices: int = 1
    options: tuple[tuple[str, str], ...] = ()

    @property
    def peak_flops(self) -> float:
        """Peak bfloat16 operations per second of a device."""
        return flops.PEAK_FLOPS[self.device_kind]

    @property
    def cores_per_device(self) -> int:
        """Cores that run a program together: two on v4 and v5p."""
        return self.cores // self.devices

    @property
    def dimensions(self) -> int:
        """Dimensions of the torus."""
        return len(self.shapes[0].split("x"))

    @property
    def needs_placement_policy(self) -> bool:
        """Whether a GKE node pool of several hosts takes a placement policy instead of a topology."""
        return self.devices > 1

    def accelerator_type(self, shape: str) -> str:
        """Returns the accelerator type of a slice, such as v5litepod-16."""
        return f"{self.product}-{chip_count(shape) * self.cores}"


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            device_kind="TPU v4",
            hbm_bytes=int(30.75 * GIB),
            hbm_bandwidth=1200e9,
            clock=275e12 / 2**18,
            link_bandwidth=300e9,
            shapes=SHAPES_V4,
            product="v4",
            machine="ct4p-hightpu",
            gke_accelerator="tpu-v4-podslice",
            runtime="tpu-ubuntu2204-base",
            cores=2,
            options=(("chip_config_name", "megacore"),),
        ),
        Chip(
            name="v5e",
            device_kind="TPU v5 lite",
            hbm_bytes=int(15.75 * GIB),
            hbm_bandwidth=819e9,
            clock=197e12 / 2**17,
            link_bandwidth=200e9,
            shapes=SHAPES_2D,
            product="v5litepod",
            machine="ct5lp-hightpu",
            gke_accelerator="tpu-v5-lite-podslice",
            runtime="v2-alpha-tpuv5-lite",
        ),
        Chip(
            name="v5p",
            device_kind="TPU v5",
            hbm_bytes=int(95.74 * GIB),
            hbm_bandwidth=2765e9,
            clock=459e12 / 2**18,
            link_bandwidth=600e9,
            shapes=SHAPES_3D,
            product="v5p",
            machine="ct5p-hightpu",
            gke_accelerator="tpu-v5p-slice",
            runtime="v2-alpha-tpuv5",
            image_family="ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e",
            cores=2,
        ),
        Chip(
            name="v6e",
            device_kind="TPU v6 lite",
            hbm_bytes=int(31.25 * GIB),
            hbm_bandwidth=1638e9,
            clock=918e12 / 2**19,
            link_bandwidth=400e9,
            shapes=SHAPES_2D,
            product="v6e",
            machine="ct6e-standard",
            gke_accelerator="tpu-v6e-slice",
            runtime="v2-alpha-tpuv6e",
            image_family="ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e",
        ),
        Chip(
            name="tpu7x",
            device_kind="TPU7x",
            hbm_bytes=int(94.75 * GIB),
            hbm_bandwidth=7380e9 / 2,
            clock=2307e12 / 2 / 2**19,
            link_bandwidth=600e9 / 2,
            shapes=("1x1x1", *SHAPES_3D),
            product="tpu7x",
            machine="tpu7x-standard",
            gke_accelerator="tpu7x",
            image_family="ubuntu-accel-2404-amd64-tpu-tpu7x",
            cores=2,
            devices=2,
        ),
    )
}


def parse_topology(name: str) -> tuple[Chip, str]:
    """Returns the chip and the shape of a topology such as "v5e:4x4".

    Raises:
      UserError: there is no such topology; names the nearest real ones.
    """
    generation, _, shape = name.partition(":")
    chip = CHIPS.get(generation)
    if chip is None or not shape:
        known = ", ".join(f"{chip.name}:{chip.shapes[3]}" for chip in CHIPS.values())
        raise UserError(
            f"topology {name!r}: wanted a generation and the chips along each side, such as {known}{_suggestion(name)}"
        )
    if shape not in chip.shapes:
        nearest = ", ".join(f"{chip.name}:{near}" for near in nearest_shapes(chip, shape))
        raise UserError(f"topology {name!r}: no such slice; the nearest: {nearest}")
    return chip, shape


def nearest_shapes(chip: Chip, shape: str) -> list[str]:
    """Returns the next smaller and the next larger slice of a chip, by the number of chips."""
    count = chip_count(shape) if re.fullmatch(r"\d+(x\d+)*", shape) else 0
    smaller = [known for known in chip.shapes if chip_count(known) <= count][-1:]
    larger = [known for known in chip.shapes if chip_count(known) > count][:1]
    return smaller + larger


def _suggestion(name: str) -> str:
    """Returns the topology of an accelerator type ("v5litepod-16", "v4-32"), which counts chips or cores; else ""."""
    wanted = name.replace("v5e-", "v5litepod-")
    for chip in CHIPS.values():
        for shape in chip.shapes:
            if chip.accelerator_type(shape) == wanted:
                return f"; {name} is {chip.name}:{shape}"
    return ""


def chip_count(shape: str) -> int:
    """Returns the number of chips of a shape such as "4x4"."""
    return math.prod(int(side) for side in shape.split("x"))


def prepare_environment(flags: str = "") -> None:
    """Configures this process for compilation only, with more flags for libtpu. Call it before jax is imported."""
    os.environ.update(ENVIRONMENT)
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {COMPILER_FLAGS} {flags}".strip()
