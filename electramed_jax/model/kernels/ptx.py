"""Instructions of NVIDIA's chips that the compiler does not use by itself, for kernels in Pallas for Triton.

Left to itself it takes two instructions for a multiply-add, four for a power of two and eight for a reciprocal, most of
them for numbers near the ends of float32. A kernel that does little else is as slow as its instructions are many.
Interpreted, where there is no such chip, each is what it is in mathematics.
"""

from __future__ import annotations

import struct
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton


class PtxMath:
    """Elementwise, of float32 arrays; any other argument is a number, or an array that broadcasts to the first."""

    def __init__(self, interpret: bool):
        self.interpret = interpret

    def multiply_add(self, x: jax.Array, y: Any, z: Any) -> jax.Array:
        """x·y + z, rounded once."""
        if self.interpret:
            return x * y + z
        return _call("fma.rn.ftz.f32 $0, {0}, {1}, {2};", x, y, z)

    def exp2(self, x: jax.Array, y: Any, z: Any) -> jax.Array:
        """2^(x·y + z), to 2^-22 of itself; 0 below the least normal number."""
        if self.interpret:
            return jnp.exp2(x * y + z)
        return _call("fma.rn.ftz.f32 $0, {0}, {1}, {2}; ex2.approx.ftz.f32 $0, $0;", x, y, z)

    def reciprocal(self, x: jax.Array) -> jax.Array:
        """1/x, to 2^-23 of itself; 0 of infinity."""
        if self.interpret:
            return 1.0 / x
        return _call("rcp.approx.ftz.f32 $0, {0};", x)


def _call(assembly: str, *operands: Any) -> jax.Array:
    """One result for each place of the first operand; numbers are written into the assembly."""
    arrays, names = [], []
    for one in operands:
        if isinstance(one, float):
            names.append("0f" + struct.pack(">f", one).hex().upper())
        else:
            arrays.append(jnp.broadcast_to(one, operands[0].shape))
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
