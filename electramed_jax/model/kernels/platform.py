"""Platform and mesh of the program that is being traced, for choosing and sharding kernels.

TPU kernels are written in Pallas for Mosaic, NVIDIA GPU kernels in Pallas for Triton. jax 0.11 announces the removal of
the latter in favour of the same language outside jax (jax-triton); setup.py pins versions that have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

LANES = 128  # of a TPU vector register


def current_platform() -> str:
    """Returns the platform of the program that is being traced: "tpu", "gpu" (NVIDIA), "rocm" (AMD) or "cpu"."""
    mesh = jax.sharding.get_abstract_mesh()
    device = jax.devices()[0] if mesh.empty else mesh.abstract_device
    return "rocm" if device.device_kind.startswith(("AMD", "gfx")) else device.platform


def tensor_shards() -> int:
    """Returns the size of the mesh axis `tensor`; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get("tensor", 1)


def shard_over_tensor(call: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """Wraps `call` in a shard_map over the axes that are not manual yet: XLA cannot partition a kernel by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    auto_axes = set(mesh.axis_names) - set(mesh.manual_axes)
    if not auto_axes:
        return call
    return jax.shard_map(call, in_specs=in_specs, out_specs=out_specs, axis_names=auto_axes, check_vma=False)
