"""The kernels of dropout, residual and layer norm, in interpret mode, equal the plain layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
from jax.sharding import AxisType

from electramed_jax.model import layers
from electramed_jax.model.kernels import residual_norm, residual_norm_gpu, residual_norm_tpu
from electramed_jax.model.ops import dropout_bits

pytestmark = pytest.mark.slow

B, T, D = 4, 64, 256
for_each_platform = pytest.mark.parametrize("platform", ["tpu", "gpu"])


def arguments(dtype: str) -> tuple[jax.Array, ...]:
    """Returns x, y, y_bias, scale, bias and an output gradient."""
    generator = np.random.default_rng(0)
    x, y, dh = (jnp.asarray(generator.normal(size=(B, T, D)), dtype) for _ in range(3))
    features = (jnp.asarray(generator.normal(size=D), jnp.float32) for _ in range(3))
    return x, y, *features, dh


def plain(x, y, y_bias, scale, bias, *, rate, seeds):
    y = layers.dropout(y.astype(jnp.float32) + y_bias[None, None, :], rate, seeds)
    return layers.layer_norm(x.astype(jnp.float32) + y, scale, bias).astype(x.dtype)


def kernel(platform):
    return lambda *arguments, rate, seeds: residual_norm.residual_norm(*arguments, seeds, rate, platform)


def result_and_gradients(form, *arguments: jax.Array, rate: float) -> list[np.ndarray]:
    @quick.jit
    def forward_and_backward(dh, *arguments):
        seeds = dropout_bits.dropout_seeds(jax.random.key(3), (B,))
        h, vjp = jax.vjp(lambda *given: form(*given, rate=rate, seeds=seeds), *arguments)
        return h, *vjp(dh)

    *given, dh = arguments
    return [np.asarray(one, np.float32) for one in forward_and_backward(dh, *given)]


@for_each_platform
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_the_kernel_equals_the_plain_layers_in_result_and_gradients(dtype, tolerance, rate, platform):
    given = arguments(dtype)
    ours, expected = (result_and_gradients(form, *given, rate=rate) for form in (kernel(platform), plain))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * np.abs(other).max())


def test_rows_of_several_blocks_drop_the_same_units(monkeypatch):
    given = arguments("float32")
    whole = result_and_gradients(kernel("tpu"), *given, rate=0.1)
    monkeypatch.setattr(residual_norm_tpu, "BLOCK_BYTES", 16 * D * 4)
    for one, other in zip(result_and_gradients(kernel("tpu"), *given, rate=0.1), whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


@for_each_platform
def test_on_a_mesh_each_device_runs_its_shard_and_drops_the_same(platform):
    given = arguments("float32")
    expected = result_and_gradients(plain, *given, rate=0.1)
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), (AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        for one, other in zip(result_and_gradients(kernel(platform), *given, rate=0.1), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_a_gpu_splits_a_width_that_is_not_a_power_of_two_into_pieces():
    given = [one[..., :192] for one in arguments("float32")]
    ours, expected = (result_and_gradients(form, *given, rate=0.1) for form in (kernel("gpu"), plain))
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())


def test_unsupported_sizes_are_rejected():
    for kernels in (residual_norm_tpu, residual_norm_gpu):
        assert kernels.supports(512, 768) and kernels.supports(128, 256)
        assert not kernels.supports(100, 768)
    assert not residual_norm_tpu.supports(512, 192), "the width is one and a half registers"
    assert not residual_norm_gpu.supports(512, 312), "the width needs 39 pieces of 8"
    assert not residual_norm_gpu.supports(512, 8192), "the width exceeds the registers of a program"
    assert not residual_norm.supports(512, 768), "there is no kernel for a CPU"
