"""A fresh model: what it loses, where its gradients reach, and how it was drawn."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle_numbers
import pytest
import quick
import small

from electramed_jax.common import trees
from electramed_jax.config import MeshConfig, ObjectiveConfig
from electramed_jax.training import sharding, state, step

LENGTH = 32
IDS = np.stack(
    [
        small.row(small.document(8, 6), small.document(5, 4, seed=1), length=LENGTH),
        small.row(small.document(20, 8, seed=2), length=LENGTH),
        small.row(small.document(9, seed=3), small.document(10, seed=4), length=LENGTH),
        small.row(small.document(3, 1, seed=5), length=LENGTH),
    ]
)


def _loss(config, params):
    return step.loss_and_sums(
        state.bind(config, params),
        {"input_ids": jnp.asarray(IDS)},
        config,
        "train",
        jnp.int32(0),
        with_dropout=False,
        with_auc=False,
    )


def _gradients(tying: str, params=None, **objective) -> dict[str, np.ndarray]:
    config = small.config(LENGTH, tying=tying, objective=ObjectiveConfig(mask_probability=0.3, **objective))
    params = quick.jit(lambda: state.init_params(config))() if params is None else params
    return jax.device_get(trees.named_leaves(quick.jit(jax.grad(lambda p: _loss(config, p)[0]))(params)))


def test_the_first_loss_is_that_of_guessing():
    """ln V for every masked token, ln 2 for every token, times their weights."""
    config = small.config(
        LENGTH, vocab_size=31_090, embedding_size=64, hidden_size=64, intermediate_size=256
    )
    loss, sums = quick.jit(lambda: _loss(config, state.init_params(config)))()
    assert sums["generator_nll_sum"] / sums["masked_count"] == pytest.approx(np.log(31_090), rel=5e-3)
    assert sums["discriminator_nll_sum"] / sums["token_count"] == pytest.approx(np.log(2), rel=1e-2)
    assert loss == pytest.approx(np.log(31_090) + 50 * np.log(2), rel=1e-2)


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tying", ["embeddings", "none", "all", "gradient_disentangled"])
def test_every_parameter_of_every_layer_gets_a_gradient(tying):
    """But the keys' bias, which adds the same to every score of a query and cancels out."""
    for name, gradient in _gradients(tying).items():
        per_layer = gradient.reshape(2 if "/layers/" in name else 1, -1)
        assert (np.abs(per_layer).max(axis=1) > 1e-7).all(), name
        if oracle_numbers.is_key_bias(name):
            assert np.abs(gradient[:, 1]).max() < 1e-6
            assert (np.abs(gradient[:, [0, 2]]).max(axis=(2, 3)) > 1e-7).all(), name


def test_padded_vocabulary_gets_no_gradient():
    gradients = _gradients("embeddings")
    assert (gradients["embeddings/word"][150:] == 0).all()
    assert (gradients["generator/head/output_bias"][150:] == 0).all()


def test_the_discriminator_trains_shared_embeddings_but_nothing_of_the_generator():
    gradients = _gradients("embeddings", generator_weight=0.0)
    for name, gradient in gradients.items():
        assert (gradient == 0).all() == name.startswith("generator/"), name


def test_disentangled_the_discriminator_trains_its_delta_and_not_the_shared_embeddings():
    gradients = _gradients("gradient_disentangled", generator_weight=0.0)
    for name, gradient in gradients.items():
        assert (gradient == 0).all() == (not name.startswith("discriminator/")), name
    assert any(name.startswith("discriminator/embedding_delta/") for name in gradients)


def test_disentangled_the_generator_trains_the_shared_embeddings_and_not_the_delta():
    gradients = _gradients("gradient_disentangled", discriminator_weight=0.0)
    for name, gradient in gradients.items():
        assert (gradient == 0).all() == name.startswith("discriminator/"), name


def test_the_delta_begins_at_zero_so_both_networks_begin_with_the_same_embeddings():
    """And, drawn from the same seed, with the loss that plain sharing has."""
    tied = small.config(LENGTH)
    disentangled = small.config(LENGTH, tying="gradient_disentangled")
    params = quick.jit(lambda: state.init_params(disentangled))()
    delta = params["discriminator"].pop("embedding_delta")
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(delta))
    both = params | {"discriminator": params["discriminator"] | {"embedding_delta": delta}}
    plain_loss, _ = quick.jit(lambda p: _loss(tied, p))(params)
    loss, _ = quick.jit(lambda p: _loss(disentangled, p))(both)
    assert loss == pytest.approx(plain_loss, rel=1e-6)


# ---- initial values ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh():
    config = small.config(
        LENGTH, embedding_size=64, hidden_size=96, intermediate_size=384, generator_hidden_size=48
    )
    return jax.device_get(trees.named_leaves(quick.jit(lambda: state.init_params(config))()))


def test_biases_begin_at_zero_and_scales_at_one(fresh):
    for name, leaf in fresh.items():
        if name.endswith("bias"):
            assert (leaf == 0).all(), name
        if name.endswith("scale"):
            assert (leaf == 1).all(), name


def test_weights_begin_as_the_references_do(fresh):
    """Truncated normal of 0.02 cut at two deviations, which leaves a deviation of 0.0176; Glorot where the reference
    leaves TF1's default: the projections and the discriminator's logit."""
    glorot = {
        "discriminator/project/kernel": (64, 96),
        "generator/project/kernel": (64, 48),
        "discriminator/head/logit/kernel": (96, 1),
    }
    weights = {name: leaf for name, leaf in fresh.items() if not name.endswith(("bias", "scale"))}
    assert set(glorot) < set(weights)
    for name, leaf in weights.items():
        if name in glorot:
            limit = np.sqrt(6 / sum(glorot[name]))  # uniform on both sides of 0
            assert np.abs(leaf).max() <= limit, name
            assert np.abs(leaf).max() > 0.9 * limit, name
            expected = limit / np.sqrt(3)
        else:
            assert np.abs(leaf).max() <= 0.04, name
            expected = 0.8796 * 0.02
        assert leaf.std() == pytest.approx(expected, rel=4 / np.sqrt(leaf.size)), name
        assert abs(leaf.mean()) < 4 * expected / np.sqrt(leaf.size), name


def test_no_two_layers_and_no_two_parameters_begin_alike(fresh):
    seen = {}
    for name, leaf in fresh.items():
        if name.endswith(("bias", "scale")):
            continue
        for index, part in enumerate(leaf if "/layers/" in name else [leaf]):
            start = part.ravel()[:8].tobytes()
            assert start not in seen, f"{name}[{index}] begins like {seen.get(start)}"
            seen[start] = f"{name}[{index}]"


# ---- the bridge ----------------------------------------------------------------------------------


def test_a_state_born_in_its_shardings_has_the_values_of_one_born_on_one_device():
    config = small.config(LENGTH)
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    created = state.create(config, mesh)
    word = created.params["embeddings"]["word"]
    assert word.sharding.shard_shape(word.shape) == (128, 4), "the table is split over tensor and fsdp"
    expected = jax.jit(lambda: state.init_params(config))()
    jax.tree.map(np.testing.assert_array_equal, created.params, expected)
    assert created.step == 0


def test_another_seed_gives_other_parameters():
    config = small.config(LENGTH)
    other = dataclasses.replace(config, seed=1)
    one, two = (quick.jit(lambda c=c: state.init_params(c))()["embeddings"]["word"] for c in (config, other))
    assert (one != two).mean() > 0.99


def test_replaced_parameters_lie_where_the_old_ones_lay():
    config = small.config(LENGTH)
    mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2))
    created = state.create(config, mesh)
    params = small.lively_params(config)
    replaced = state.with_params(created, params)
    jax.tree.map(np.testing.assert_array_equal, replaced.params, params)
    assert jax.tree.map(lambda leaf: leaf.sharding, replaced.params) == jax.tree.map(
        lambda leaf: leaf.sharding, created.params
    )
