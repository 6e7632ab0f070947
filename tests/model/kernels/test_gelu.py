"""The GELU kernels, in interpret mode, equal layers.biased_gelu in float32, rounded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from jax.sharding import AxisType

from electramed_jax.model import layers
from electramed_jax.model.kernels import gelu, gelu_gpu

pytestmark = pytest.mark.slow

B, T, F = 4, 128, 512


def inputs() -> tuple[jax.Array, ...]:
    """Returns x, its bias and an output gradient."""
    generator = np.random.default_rng(0)
    x, dy = (jnp.asarray(2 * generator.normal(size=(B, T, F)), jnp.bfloat16) for _ in range(2))
    return x, jnp.asarray(generator.normal(size=F), jnp.float32), dy


def result_and_gradients(form, x: jax.Array, bias: jax.Array, dy: jax.Array) -> list[np.ndarray]:
    @quick.jit
    def forward_and_backward(x, bias, dy):
        y, vjp = jax.vjp(form, x, bias)
        return y, *vjp(dy)

    return [np.asarray(one, np.float32) for one in forward_and_backward(x, bias, dy)]


def kernel(x: jax.Array, bias: jax.Array) -> jax.Array:
    return gelu_gpu.biased_gelu(x, bias, True)


def assert_near(ours: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=5e-3, atol=1e-3 * np.abs(other).max())


def exact() -> list[np.ndarray]:
    x, bias, dy = inputs()
    return result_and_gradients(layers.biased_gelu, x.astype(jnp.float32), bias, dy.astype(jnp.float32))


def test_the_kernel_equals_plain_gelu_in_result_and_gradients():
    assert_near(result_and_gradients(kernel, *inputs()), exact())


def test_on_a_mesh_each_device_runs_its_shard():
    expected = exact()
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        assert_near(result_and_gradients(kernel, *inputs()), expected)


def test_other_platforms_and_unsupported_sizes_are_rejected(monkeypatch):
    half = jnp.dtype(jnp.bfloat16)
    assert not gelu.supports(512, 3072, half), "there is no kernel for a CPU"
    monkeypatch.setattr(gelu.platform, "current_platform", lambda: "gpu")
    assert gelu.supports(512, 3072, half)
    assert not gelu.supports(512, 3072, jnp.dtype(jnp.float32)), "its approximation is for 16 bits"
    assert not gelu.supports(512, 96, half) and not gelu.supports(100, 3072, half)
