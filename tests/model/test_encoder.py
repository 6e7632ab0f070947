"""Recomputing in the backward pass, and the key that drops units, against the plain pass."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import small

from electramed_jax.model import masking
from electramed_jax.training import state

LENGTH = 16
IDS = np.stack([small.row(small.document(8, 4), length=LENGTH), small.row(small.document(5), length=LENGTH)])


@pytest.fixture(scope="module")
def hidden_and_gradients():
    """By remat policy: two hidden states under one dropout key, one under another, and the gradient of the first."""

    def run(remat: str):
        config = small.config(LENGTH, dropout=0.3, attention_dropout=0.3, remat=remat)

        def hidden(params, seed):
            structure = masking.structure(jnp.asarray(IDS), small.SPECIAL)
            model = state.bind(config, params)
            return model.discriminator_hidden(jnp.asarray(IDS), structure, jax.random.key(seed))

        def loss(params, seed):
            h_BTD = hidden(params, seed)
            return jnp.sum(h_BTD * jnp.cos(jnp.arange(h_BTD.size)).reshape(h_BTD.shape)), h_BTD

        gradient = quick.jit(jax.grad(loss, has_aux=True))
        params = small.lively_params(config)
        (gradients, first), (_, again), (_, other) = (gradient(params, seed) for seed in (0, 0, 1))
        return jax.device_get({"gradients": gradients["discriminator"], "first": first, "again": again, "other": other})

    return {remat: run(remat) for remat in ("none", "dots", "full")}


def test_dropout_is_a_function_of_its_key(hidden_and_gradients):
    plain = hidden_and_gradients["none"]
    np.testing.assert_array_equal(plain["first"], plain["again"])
    assert np.abs(plain["first"] - plain["other"]).max() > 0.1


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_recomputation_drops_the_same_units_again(hidden_and_gradients, remat):
    plain, recomputed = hidden_and_gradients["none"], hidden_and_gradients[remat]
    np.testing.assert_allclose(recomputed["first"], plain["first"], atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * max(1.0, np.abs(b).max()), rtol=0),
        recomputed["gradients"],
        plain["gradients"],
    )
