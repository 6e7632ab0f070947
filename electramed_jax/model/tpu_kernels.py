"""What the hand-written TPU kernels have in common: when they can be used, and how they meet a mesh."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

LANES = 128  # of a vector register
ROWS = ("data", "fsdp")  # mesh axes that the batch is split over


def for_tpu() -> bool:
    """Whether what is traced now will run on TPUs."""
    mesh = jax.sharding.get_abstract_mesh()
    return (jax.default_backend() if mesh.empty else mesh.abstract_device.platform) == "tpu"


def parts(*axes: str) -> int:
    """Devices along these axes of the mesh; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(dict(mesh.shape).get(axis, 1) for axis in axes)


def on_every_device(call: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`call` on each device's part of the arrays: the compiler cannot split a kernel by itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return call
    return jax.shard_map(call, in_specs=in_specs, out_specs=out_specs, check_vma=False)
