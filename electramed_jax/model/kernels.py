"""What the hand-written kernels have in common: when they can be used, and how they meet a mesh.

A TPU's are written in Pallas for Mosaic, a GPU's in Pallas for Triton. Of the latter jax 0.11 says that it will go some
day, in favour of the same language outside jax (jax-triton): setup.py keeps to versions that have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

LANES = 128  # of a TPU's vector register
ROWS = ("data", "fsdp")  # mesh axes that the batch is split over


def platform() -> str:
    """What the program that is traced now will run on: "tpu", "gpu" or "cpu"."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def parts(*axes: str) -> int:
    """Devices along these axes of the mesh; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(dict(mesh.shape).get(axis, 1) for axis in axes)


def on_every_device(call: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`call` on each device's part of the arrays: the compiler cannot split a kernel by itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return call
    return jax.shard_map(call, in_specs=in_specs, out_specs=out_specs, check_vma=False)
