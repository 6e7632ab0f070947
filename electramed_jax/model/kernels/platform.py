"""Platform and mesh of the program that is being traced, for choosing and sharding kernels.

TPU kernels are written in Pallas for Mosaic, NVIDIA GPU kernels in Pallas for Triton. A backend of Pallas is imported
only for a program of its own platform.

jax deprecates Pallas for Triton since 0.11 and will remove it; 0.12 still has it. The kernels stay on it until then,
and `has_triton` guards them: without it a GPU runs the plain form. Alternatives that were considered:
  * Pallas for Mosaic GPU: Ampere, Hopper and Blackwell multiply matrices with different instructions, so each
    generation needs kernels of its own, written and timed on such a GPU.
  * jax-triton: needs jax 0.11 and the triton package. Its language is not Pallas, so that the tests could not compare
    the kernels with the plain form in interpret mode, on any machine.
  * cuDNN's attention: does not drop the same probabilities, does not skip blocks of other documents, and is slower
    (tests/benchmarks/README.md).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import jax

LANES = 128  # of a TPU vector register
TRITON_FUNCTIONS = ("CompilerParams", "elementwise_inline_asm", "load", "store")  # of Pallas for Triton


@functools.cache
def has_triton() -> bool:
    """Returns whether this jax has Pallas for Triton, which the GPU kernels are written in."""
    try:
        from jax.experimental.pallas import triton
    except ImportError:
        return False
    return all(hasattr(triton, name) for name in TRITON_FUNCTIONS)


def require(kernels: types.ModuleType | None) -> types.ModuleType:
    """Returns the kernels of a platform; the caller has checked with `supports` that there are some."""
    assert kernels is not None, "this platform has no such kernel"
    return kernels


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
