"""bfloat16 matrix products on one CPU device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from electramed_jax.model.attention import attend
from electramed_jax.model.layers import Dense, truncated_normal
from electramed_jax.model.ops import cpu_matmul, dropout_bits

pytestmark = pytest.mark.slow


def rounded(shape: tuple[int, ...], seed: int) -> jax.Array:
    """Returns float32 numbers that bfloat16 represents exactly, so that only sums are rounded."""
    return jax.random.normal(jax.random.key(seed), shape).astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize(
    "transposed, equation, a, b",
    [
        (False, "...mk,...kn->...mn", (33, 24), (24, 40)),
        (False, "...mk,...kn->...mn", (2, 3, 17, 8), (2, 3, 8, 1)),
        (True, "...mk,...nk->...mn", (19, 24), (384, 24)),
        (True, "...mk,...nk->...mn", (2, 1, 8, 16), (2, 1, 16, 16)),
    ],
)
def test_products_and_their_gradients_equal_einsum(transposed, equation, a, b):
    a, b = rounded(a, 0), rounded(b, 1)

    @jax.jit
    def run(a: jax.Array, b: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
        result, backward = jax.vjp(lambda a, b: cpu_matmul.matmul(a, b, transposed), a, b)
        return result, *backward(g)

    expected, expected_backward = jax.vjp(lambda a, b: jnp.einsum(equation, a, b, precision="highest"), a, b)
    g = rounded(expected.shape, 2)
    result, *gradients = run(a, b, g)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, expected_backward(g), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4)


def test_attention_in_bfloat16_equals_float32_up_to_rounding():
    q, k, v = (rounded((2, 16, 2, 8), seed) for seed in range(3))
    segments = jnp.array([[1] * 9 + [2] * 5 + [0] * 2, [1] * 16])
    seeds = dropout_bits.dropout_seeds(jax.random.key(3), (2, 2))

    def run(dtype: jnp.dtype) -> tuple:
        def total(q, k, v):
            return jnp.sum(jnp.sin(attend(q, k, v, segments, dtype, dropout_rate=0.1, seeds_2BN=seeds)))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    assert cpu_matmul.use_cpu_matmul(jnp.dtype(jnp.bfloat16))
    for one, other in zip(jax.tree.leaves(run(jnp.bfloat16)), jax.tree.leaves(run(jnp.float32)), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02 * float(jnp.max(jnp.abs(other))))


def test_activations_are_float32_on_one_device_and_bfloat16_on_several():
    layer = Dense(
        "btd,dcf->cbtf", (4, 3, 6), (3, 6), rngs=nnx.Rngs(0), dtype=jnp.dtype(jnp.bfloat16),
        initializer=truncated_normal(0.1),
    )  # fmt: skip
    x = rounded((8, 5, 4), 0)
    one_device = layer(x)
    assert one_device.shape == (3, 8, 5, 6) and one_device.dtype == jnp.float32
    if jax.device_count() > 1:
        with jax.set_mesh(jax.make_mesh((jax.device_count(),), ("data",))):
            several_devices = jax.jit(layer.__call__)(x)
        assert several_devices.dtype == jnp.bfloat16
        np.testing.assert_allclose(one_device, several_devices.astype(jnp.float32), rtol=0.02, atol=1e-3)
