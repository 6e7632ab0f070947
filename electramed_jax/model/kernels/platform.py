"""What the hand-written kernels have in common: when they can be used, and how they meet a mesh.

A TPU's are written in Pallas for Mosaic, those of NVIDIA's GPUs in Pallas for Triton. Of the latter jax 0.11 says that
it will go some day, in favour of the same language outside jax (jax-triton): setup.py keeps to versions that have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

LANES = 128  # of a TPU's vector register


def current_platform() -> str:
    """What the program that is traced now will run on: "tpu", "gpu" (NVIDIA's), "rocm" (AMD's) or "cpu"."""
    mesh = jax.sharding.get_abstract_mesh()
    device = jax.devices()[0] if mesh.empty else mesh.abstract_device
    return "rocm" if device.device_kind.startswith(("AMD", "gfx")) else device.platform


def tensor_shards() -> int:
    """Devices that share the heads and features of a row; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("tensor", 1)


def shard_over_tensor(call: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`call` on each device's part of the arrays along `tensor`: the compiler cannot split a kernel by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    left = set(mesh.axis_names) - set(mesh.manual_axes)
    if not left:
        return call
    return jax.shard_map(call, in_specs=in_specs, out_specs=out_specs, axis_names=left, check_vma=False)
