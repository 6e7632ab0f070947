"""Initial loss, gradients and initial values of a model."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import oracle_numbers
import pytest
import quick
import small

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import ModelConfig, ObjectiveConfig
from electramed_jax.pretrain.state import init_params

pytestmark = pytest.mark.slow

LENGTH = 32
IDS = np.stack(
    [
        small.row(small.document(8, 6), small.document(5, 4, seed=1), length=LENGTH),
        small.row(small.document(20, 8, seed=2), length=LENGTH),
        small.row(small.document(9, seed=3), small.document(10, seed=4), length=LENGTH),
        small.row(small.document(3, 1, seed=5), length=LENGTH),
    ]
)


@functools.cache
def _gradients(tying: str, **objective: float) -> dict[str, np.ndarray]:
    config = small.config(LENGTH, tying=tying, objective=ObjectiveConfig(mask_probability=0.3, **objective))
    gradient = quick.jit(jax.grad(lambda params: small.loss_and_sums(config, params, IDS)[0]))
    return jax.device_get(tree_rules.named_leaves(gradient(small.noisy_params(config))))


def test_the_initial_loss_is_that_of_uniform_guessing():
    """ln V per masked token and ln 2 per token, times the loss weights. Glorot logits differ slightly from 0."""
    config = small.config(LENGTH, vocab_size=31_090, embedding_size=64, hidden_size=64, intermediate_size=256)
    loss, sums = quick.jit(lambda: small.loss_and_sums(config, init_params(config), IDS))()
    assert sums["generator_nll_sum"] / sums["masked_count"] == pytest.approx(np.log(31_090), rel=5e-3)
    assert sums["discriminator_nll_sum"] / sums["token_count"] == pytest.approx(np.log(2), rel=6e-2)
    assert loss == pytest.approx(np.log(31_090) + 50 * np.log(2), rel=5e-2)


# ---- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tying", ["embeddings", "none", "all", "gradient_disentangled"])
def test_every_parameter_of_every_layer_gets_a_gradient(tying):
    """Except the bias of keys, which adds the same number to all scores of a query and cancels out."""
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


def test_disentangled_both_networks_start_with_the_same_embeddings():
    config = small.config(LENGTH, tying="gradient_disentangled")
    params = quick.jit(lambda: init_params(config))()
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(params["discriminator"]["embedding_delta"]))
    assert (params["embeddings"]["word"] != 0).any()


# ---- initial values ------------------------------------------------------------------------------


KERNEL_STDDEV = 0.05


@pytest.fixture(scope="module")
def initial_params():
    config = small.config(
        LENGTH,
        embedding_size=64,
        hidden_size=96,
        intermediate_size=384,
        generator_hidden_size=48,
        kernel_stddev=KERNEL_STDDEV,
    )
    return jax.device_get(tree_rules.named_leaves(quick.jit(lambda: init_params(config))()))


def test_biases_start_at_zero_and_scales_at_one(initial_params):
    for name, leaf in initial_params.items():
        if name.endswith("bias"):
            assert (leaf == 0).all(), name
        if name.endswith("scale"):
            assert (leaf == 1).all(), name


def test_weights_have_the_initial_distribution_of_the_reference(initial_params):
    """A normal distribution truncated at two standard deviations, which leaves 0.88 of one, and not rescaled.

    Projections and the discriminator's logit have TF1's default, Glorot's uniform distribution.
    """
    assert ModelConfig().kernel_stddev == 0.02
    glorot = {
        "discriminator/project/kernel": (64, 96),
        "generator/project/kernel": (64, 48),
        "discriminator/head/logit/kernel": (96, 1),
    }
    weights = {name: leaf for name, leaf in initial_params.items() if not name.endswith(("bias", "scale"))}
    assert set(glorot) < set(weights)
    for name, leaf in weights.items():
        if name in glorot:
            limit = np.sqrt(6 / sum(glorot[name]))  # uniform on both sides of 0
            deviation = limit / np.sqrt(3)
        else:
            stddev = KERNEL_STDDEV if name.endswith("kernel") else 0.02
            limit, deviation = 2 * stddev, 0.8796 * stddev
        assert 0.9 * limit < np.abs(leaf).max() <= limit, name
        assert leaf.std() == pytest.approx(deviation, rel=4 / np.sqrt(leaf.size)), name
        assert abs(leaf.mean()) < 4 * deviation / np.sqrt(leaf.size), name


def test_no_two_layers_and_no_two_parameters_have_equal_initial_values(initial_params):
    seen = {}
    for name, leaf in initial_params.items():
        if name.endswith(("bias", "scale")):
            continue
        for index, part in enumerate(leaf if "/layers/" in name else [leaf]):
            start = part.ravel()[:8].tobytes()
            assert start not in seen, f"{name}[{index}] starts like {seen.get(start)}"
            seen[start] = f"{name}[{index}]"


def test_different_seeds_give_different_parameters():
    def word(seed: int) -> jax.Array:
        return init_params(dataclasses.replace(small.config(LENGTH), seed=seed))["embeddings"]["word"]

    one, again, other = quick.jit(lambda: (word(0), word(0), word(1)))()
    assert (one == again).all()
    assert (one != other).mean() > 0.99
