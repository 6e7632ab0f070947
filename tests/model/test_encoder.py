"""A stack of blocks, scanned or unrolled, with and without remat, equals its blocks applied one by one."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import small
from flax import nnx

from electramed_jax.model import encoder
from electramed_jax.pretrain.state import merge_params

LENGTH, LAYERS = 16, 3
CONFIG = small.config(LENGTH, num_layers=LAYERS, dropout=0.3, attention_dropout=0.3)
X = np.random.default_rng(0).normal(size=(2, LENGTH, CONFIG.model.hidden_size)).astype(np.float32)
SEGMENTS = np.stack([np.repeat([1, 2, 3, 0], [6, 2, 5, 3]), np.repeat([1], 16)])


def _apply_one_by_one(blocks, x_BTD, segments_BT, *, num_layers, remat, scan, key):
    """Reference of `run_blocks`: applies block i with the i-th key of the split."""
    del remat, scan
    graph, stacked = nnx.split(blocks)
    seeds = [encoder.DropoutSeeds()] * num_layers
    if key is not None:
        heads = CONFIG.model.num_heads
        seeds = [encoder.dropout_seeds_for_block(one, len(x_BTD), heads) for one in jax.random.split(key, num_layers)]
    for i in range(num_layers):
        x_BTD = nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], stacked))(x_BTD, segments_BT, seeds[i])
    return x_BTD


def _evaluate(run, remat: str, scan: bool = True) -> types.SimpleNamespace:
    """Computes outputs with two dropout keys and without one, and the gradient for the first key."""

    def output(params, key):
        blocks = merge_params(CONFIG, params).discriminator.layers
        x_BTD, segments_BT = jnp.asarray(X), jnp.asarray(SEGMENTS)
        return run(blocks, x_BTD, segments_BT, num_layers=LAYERS, remat=remat, scan=scan, key=key)

    def loss(params, key):
        y_BTD = output(params, key)
        return jnp.sum(y_BTD * jnp.cos(jnp.arange(y_BTD.size)).reshape(y_BTD.shape)), y_BTD

    @quick.jit
    def everything(params):
        gradients, dropped = jax.grad(loss, has_aux=True)(params, jax.random.key(0))
        layers = gradients["discriminator"]["layers"]
        return dict(
            gradients=layers, dropped=dropped, otherwise=output(params, jax.random.key(1)), whole=output(params, None)
        )

    return types.SimpleNamespace(**jax.device_get(everything(small.noisy_params(CONFIG))))


@pytest.fixture(scope="module")
def expected():
    return _evaluate(_apply_one_by_one, "none")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("remat", "scan"), [("none", True), ("dots", True), ("full", True), ("none", False), ("dots", False)]
)
def test_a_stack_equals_its_blocks_applied_one_by_one_with_the_same_dropped_units(expected, remat, scan):
    """Holds for outputs and for gradients, where recomputation must drop the same units again."""
    ours = _evaluate(encoder.run_blocks, remat, scan)
    for name in ("whole", "dropped", "otherwise"):
        np.testing.assert_allclose(getattr(ours, name), getattr(expected, name), atol=1e-5, err_msg=name)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), rtol=0),
        ours.gradients,
        expected.gradients,
    )


@pytest.mark.slow
def test_each_key_drops_different_units(expected):
    assert np.abs(expected.dropped - expected.otherwise).max() > 0.1
    assert np.abs(expected.dropped - expected.whole).max() > 0.1
