"""bfloat16 matrix products in the forms for which XLA:CPU has fast code.

On processors with bfloat16 instructions such a product takes half the time of float32, but only if the last axis of the
left operand is contracted and the result is float32. All other forms use code slower than float32's, and elementwise
bfloat16 is converted back and forth. Therefore gradients, most of which have other forms, are written by hand with a
transposed copy of the smaller array, and everything except products stays float32.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

INPUT_DTYPE = jnp.bfloat16  # of the operands


def use_cpu_matmul(dtype: jnp.dtype) -> bool:
    """Returns whether this module computes products in `dtype`: bfloat16 in a program for one CPU device."""
    mesh = jax.sharding.get_abstract_mesh()
    platform, devices = (jax.default_backend(), 1) if mesh.empty else (mesh.abstract_device.platform, mesh.size)
    return dtype == INPUT_DTYPE and platform == "cpu" and devices == 1


def activation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Returns the dtype of activations between products in `dtype`: float32 if this module computes them."""
    return jnp.dtype(jnp.float32) if use_cpu_matmul(dtype) else dtype


def dense(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns a float32 einsum that contracts the last axis of x with the first axis of the kernel."""
    x_axes, kernel_axes, result_axes = equation.replace("->", ",").split(",")
    flat = matmul(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[0], -1))
    product = flat.reshape(*x.shape[:-1], *kernel.shape[1:])
    return jnp.einsum(f"{x_axes[:-1]}{kernel_axes[1:]}->{result_axes}", product)


def matmul(a: jax.Array, b: jax.Array, transposed: bool = False) -> jax.Array:
    """Returns a [..., M, K] times b [..., K, N] (with `transposed`: b [..., N, K]), float32[..., M, N]."""
    return _matmul(a.astype(jnp.float32), b.astype(jnp.float32), transposed)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _matmul(a: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    return _product(a.astype(INPUT_DTYPE), b.astype(INPUT_DTYPE), transposed)


def _forward(a: jax.Array, b: jax.Array, transposed: bool) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    residuals = a.astype(INPUT_DTYPE), b.astype(INPUT_DTYPE)
    return _product(*residuals, transposed), residuals


def _backward(transposed: bool, residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b = residuals
    g = g.astype(INPUT_DTYPE)
    left, right = (g, a) if transposed else (a, g)
    return _product(g, b, not transposed), _product(_transposed_copy(left), right, False)


_matmul.defvjp(_forward, _backward)


def _product(a: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    batch = tuple(range(a.ndim - 2))
    contracted = b.ndim - 1 if transposed else b.ndim - 2
    dimension_numbers = (((a.ndim - 1,), (contracted,)), (batch, batch))
    return jax.lax.dot_general(a, b, dimension_numbers, preferred_element_type=jnp.float32)


def _transposed_copy(x: jax.Array) -> jax.Array:
    """Returns x with its last two axes swapped in memory.

    Without the layout constraint XLA would fold the transpose into a product of a slow form.
    """
    return with_layout_constraint(jnp.swapaxes(x, -1, -2), Layout(tuple(range(x.ndim))))
