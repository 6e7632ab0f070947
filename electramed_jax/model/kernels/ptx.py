"""Instructions of NVIDIA GPUs that the compiler does not emit by itself, for kernels in Pallas for Triton.

The compiler takes two instructions for a multiply-add, four for a power of two and eight for a reciprocal, most of them
for numbers near the limits of float32. The time of an elementwise kernel is proportional to its number of instructions.
In interpret mode each method computes the mathematical function with jnp.
"""

from __future__ import annotations

import struct
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton


class PtxMath:
    """Elementwise functions of float32 arrays. Further arguments are numbers or arrays that broadcast to the first."""

    def __init__(self, interpret: bool):
        self.interpret = interpret

    def multiply_add(self, x: jax.Array, y: Any, z: Any) -> jax.Array:
        """Returns x·y + z, rounded once."""
        if self.interpret:
            return x * y + z
        return _call("fma.rn.ftz.f32 $0, {0}, {1}, {2};", x, y, z)

    def exp2(self, x: jax.Array, y: Any, z: Any) -> jax.Array:
        """Returns 2^(x·y + z), with a relative error of 2^-22; 0 below the smallest normal number."""
        if self.interpret:
            return jnp.exp2(x * y + z)
        return _call("fma.rn.ftz.f32 $0, {0}, {1}, {2}; ex2.approx.ftz.f32 $0, $0;", x, y, z)

    def reciprocal(self, x: jax.Array) -> jax.Array:
        """Returns 1/x, with a relative error of 2^-23; 0 for infinity."""
        if self.interpret:
            return 1.0 / x
        return _call("rcp.approx.ftz.f32 $0, {0};", x)


def _call(assembly: str, *operands: Any) -> jax.Array:
    """Runs the assembly for each element of the first operand. Numbers are written into the assembly."""
    arrays, names = [], []
    for operand in operands:
        if isinstance(operand, float):
            names.append("0f" + struct.pack(">f", operand).hex().upper())
        else:
            arrays.append(jnp.broadcast_to(operand, operands[0].shape))
            names.append(f"${len(arrays)}")
    shape = jax.ShapeDtypeStruct(operands[0].shape, jnp.float32)
    [result] = triton.elementwise_inline_asm(
        assembly.format(*names),
        args=arrays,
        constraints=",".join(["=f", *["f"] * len(arrays)]),
        pack=1,
        result_shape_dtypes=[shape],
    )
    return result
