"""bfloat16 matrix products in the forms that XLA's CPU compiler has fast code for.

On processors with bfloat16 instructions a product then takes half of float32's time, but only where the left operand's
last axis is summed over and the result is float32: every other form falls back to code slower than float32's, and
elementwise bfloat16 is converted back and forth. So gradients, most of which are of other forms, are written here by
hand, with a transposed copy of the smaller array; and what is not a product stays float32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

INPUT_DTYPE = jnp.bfloat16  # the dtype of what is multiplied


def use_cpu_matmul(dtype: jnp.dtype) -> bool:
    """Whether products in this dtype are those of this module: bfloat16, in a program for one CPU device."""
    mesh = jax.sharding.get_abstract_mesh()
    platform, devices = (jax.default_backend(), 1) if mesh.empty else (mesh.abstract_device.platform, mesh.size)
    return dtype == INPUT_DTYPE and platform == "cpu" and devices == 1


def activation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype of what is between products in `dtype`: itself, but where they are those of this module."""
    return jnp.dtype(jnp.float32) if use_cpu_matmul(dtype) else dtype


def dense(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """einsum over x's last and the kernel's first axis, float32."""
    of_x, of_kernel, of_result = equation.replace("->", ",").split(",")
    flat = matmul(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[0], -1))
    spread = flat.reshape(*x.shape[:-1], *kernel.shape[1:])
    return jnp.einsum(f"{of_x[:-1]}{of_kernel[1:]}->{of_result}", spread)


def matmul(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """a [..., M, K] times b [..., K, N], or with `transposed` b [..., N, K]: float32[..., M, N]."""
    return _matmul(a.astype(jnp.float32), b.astype(jnp.float32), transposed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(a: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    return _product(a.astype(INPUT_DTYPE), b.astype(INPUT_DTYPE), transposed)


def _forward(a: jax.Array, b: jax.Array, transposed: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    kept = a.astype(INPUT_DTYPE), b.astype(INPUT_DTYPE)
    return _product(*kept, transposed), kept


def _backward(transposed: bool, kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = kept
    g = g.astype(INPUT_DTYPE)
    of_b = (g, a) if transposed else (a, g)
    return _product(g, b, not transposed), _product(_transposed_copy(of_b[0]), of_b[1], False)


_matmul.defvjp(_forward, _backward)


def _product(a: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    batch = tuple(range(a.ndim - 2))
    summed = b.ndim - 1 if transposed else b.ndim - 2
    numbers = (((a.ndim - 1,), (summed,)), (batch, batch))
    return jax.lax.dot_general(a, b, numbers, preferred_element_type=jnp.float32)


def _transposed_copy(x: jax.Array) -> jax.Array:
    """The last two axes swapped in memory: without the constraint XLA would fold it into a product of a slow form."""
    return with_layout_constraint(jnp.swapaxes(x, -1, -2), Layout(tuple(range(x.ndim))))
