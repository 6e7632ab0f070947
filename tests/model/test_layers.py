"""GELU and layer norm against google-research/electra, and dropout."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle_numbers
import pytest
import quick
import scipy.special

from electramed_jax.model import layers
from electramed_jax.model.ops import dropout_bits, numerics


@pytest.fixture(scope="module")
def helpers(shared_data):
    return oracle_numbers.read(shared_data / "oracle" / "helpers.npz")


def test_gelu_equals_the_exact_gelu_of_the_reference(helpers):
    """The tanh approximation would differ by 4.7e-4."""
    np.testing.assert_allclose(quick.jit(layers.gelu)(helpers["gelu/x"]), helpers["gelu/y"], atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gelu_and_its_derivative_are_exact_up_to_rounding(dtype):
    """Compares with float64, over the range where 16 bits distinguish x·Φ(x) from 0 and from x."""
    x = jnp.concatenate([jnp.linspace(-3.5, 40.0, 8001), jnp.asarray([-1e4, -6.0, 0.0, 1e4])]).astype(dtype)
    y, derivative = quick.jit(lambda x: (layers.gelu(x), jax.grad(lambda x: jnp.sum(layers.gelu(x)))(x)))(x)
    x64 = np.asarray(x, np.float64)
    cdf = 0.5 * scipy.special.erfc(-x64 * 0.5**0.5)
    exact_derivative = cdf + x64 * np.exp(-0.5 * x64**2) * (2 * np.pi) ** -0.5
    relative, absolute = {"float32": (1e-4, 1e-6), "bfloat16": (2**-8 * 1.5, 1e-5)}[x.dtype.name]
    np.testing.assert_allclose(np.asarray(y, np.float64), x64 * cdf, rtol=relative, atol=absolute)
    np.testing.assert_allclose(np.asarray(derivative, np.float64), exact_derivative, rtol=relative, atol=absolute)


def test_layer_norm_equals_the_reference_down_to_tiny_deviations(helpers):
    """Rows with standard deviations down to 1e-8 distinguish an epsilon of 1e-12 from one of 1e-6.

    Row 9 is constant and excluded: the reference's x·inv + (beta - mean·inv) is ill-conditioned there.
    """
    x, scale, bias = (helpers[f"layer_norm/{name}"] for name in ("x", "gamma", "beta"))
    ours = np.asarray(quick.jit(layers.layer_norm)(x, scale, bias))
    compared = [i for i in range(len(x)) if i != 9]
    np.testing.assert_allclose(ours[compared], helpers["layer_norm/y"][compared], atol=1e-5, rtol=0)


def test_layer_norm_of_a_constant_row_is_the_bias(helpers):
    bias = helpers["layer_norm/beta"]
    ours = quick.jit(layers.layer_norm)(np.full((1, 8), 2.5, np.float32), helpers["layer_norm/gamma"], bias)
    np.testing.assert_array_equal(ours[0], bias)


def test_layer_norm_of_bfloat16_computes_statistics_in_float32():
    x = jnp.asarray(100 + np.random.default_rng(0).normal(size=(4, 512)), jnp.bfloat16)
    ours = quick.jit(layers.layer_norm)(x, jnp.ones(512), jnp.zeros(512))
    assert ours.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(axis=-1, keepdims=True)) / exact.std(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(ours, np.float64), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.slow
def test_dropout_zeroes_a_fraction_and_keeps_the_mean():
    x = jnp.full((200, 500), 3.0)
    dropped = np.asarray(
        quick.jit(layers.dropout, static_argnums=1)(x, 0.1, dropout_bits.dropout_seeds(jax.random.key(0), (200,)))
    )
    share = (dropped == 0).mean()
    assert abs(share - 0.1) < 4 * np.sqrt(0.1 * 0.9 / x.size)
    np.testing.assert_allclose(dropped[dropped != 0], 3.0 / 0.9, rtol=1e-6)


@pytest.mark.slow
def test_dropout_without_seeds_or_rate_is_the_identity():
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(layers.dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(layers.dropout(x, 0.0, dropout_bits.dropout_seeds(jax.random.key(0), (6,))), x)


@pytest.mark.slow
def test_layer_norm_gradients_equal_those_of_torch():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    given = [generator.normal(size=size).astype(np.float32) for size in ((2, 5, 48), (48,), (48,), (2, 5, 48))]
    x, scale, bias, dy = (torch.tensor(one, requires_grad=True) for one in given)
    (torch.nn.functional.layer_norm(x, (48,), scale, bias, numerics.LAYER_NORM_EPSILON) * dy).sum().backward()
    ours = jax.grad(lambda *of: jnp.sum(layers.layer_norm(*of) * given[3]), argnums=(0, 1, 2))(*given[:3])
    for one, other in zip(ours, (x, scale, bias), strict=True):
        np.testing.assert_allclose(one, other.grad, rtol=1e-4, atol=1e-5)
