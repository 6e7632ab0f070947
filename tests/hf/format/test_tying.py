"""A parameter tree is split into complete networks for every tying, and is rebuilt from them."""

from __future__ import annotations

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import diff_trees, named_leaves
from electramed_jax.config.pretrain import TYINGS
from electramed_jax.hf.format import tying as networks
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR


@pytest.mark.parametrize("tying", TYINGS)
def test_splitting_and_joining_gives_the_same_tree(make_pair, tying):
    pair = make_pair(tying=tying)
    again = networks.join_networks(networks.split_networks(pair.params, tying), tying)
    assert diff_trees(pair.params, again, "before", "after") == []
    leaves = named_leaves(again)
    for name, leaf in named_leaves(pair.params).items():
        rounding = 1e-6 if "embedding_delta" in name else 0.0
        np.testing.assert_allclose(leaves[name], leaf, rtol=0, atol=rounding, err_msg=name)


@pytest.mark.parametrize("tying", TYINGS)
def test_the_tying_is_detected_from_the_two_networks(make_pair, tying):
    assert networks.detect_tying(networks.split_networks(make_pair(tying=tying).params, tying)) == tying


def test_gradient_disentangled_embeddings_are_merged_for_the_discriminator_alone(make_pair):
    pair = make_pair(tying="gradient_disentangled")
    split = networks.split_networks(pair.params, "gradient_disentangled")
    shared, delta = pair.params["embeddings"], pair.params["discriminator"]["embedding_delta"]
    np.testing.assert_array_equal(split[DISCRIMINATOR]["embeddings/word"], shared["word"] + delta["word"])
    merged_scale = shared["norm"]["scale"] + delta["norm"]["scale"]
    np.testing.assert_array_equal(split[DISCRIMINATOR]["embeddings/norm/scale"], merged_scale)
    np.testing.assert_array_equal(split[GENERATOR]["embeddings/word"], shared["word"])


def test_a_corrective_head_is_not_exported(make_pair):
    """Hugging Face's ElectraForPreTraining has no place for it."""
    pair = make_pair()
    head = {"corrective_head": pair.params["generator"]["head"]}
    params = pair.params | {"discriminator": pair.params["discriminator"] | head}
    exported = networks.split_networks(params, "embeddings")[DISCRIMINATOR]
    assert exported.keys() == networks.split_networks(pair.params, "embeddings")[DISCRIMINATOR].keys()


def test_with_everything_tied_the_generator_has_the_encoder_of_the_discriminator(make_pair):
    split = networks.split_networks(make_pair(tying="all").params, "all")
    name = "layers/feed_forward/up/kernel"
    np.testing.assert_array_equal(split[GENERATOR][name], split[DISCRIMINATOR][name])
    assert split[GENERATOR]["head/dense/kernel"].shape == (16, 12)


def test_an_untied_generator_has_tables_of_its_own_width(make_pair):
    split = networks.split_networks(make_pair(tying="none").params, "none")
    assert split[GENERATOR]["embeddings/word"].shape == (128, 8)
    assert split[DISCRIMINATOR]["embeddings/word"].shape == (128, 12)
    assert "project/kernel" not in split[GENERATOR]


def test_a_run_without_a_generator_has_only_a_discriminator(make_pair):
    assert list(networks.split_networks(make_pair(kind="uniform").params, "embeddings")) == [DISCRIMINATOR]


@pytest.mark.parametrize("tying", TYINGS)
def test_a_discriminator_alone_has_all_leaves_except_the_generator_s(make_pair, tying):
    pair = make_pair(tying=tying)
    alone = {DISCRIMINATOR: networks.split_networks(pair.params, tying)[DISCRIMINATOR]}
    expected = {name for name in named_leaves(pair.params) if not name.startswith("generator/")}
    assert set(named_leaves(networks.join_networks(alone, tying))) == expected


def test_the_delta_is_zero_if_a_tied_pair_is_imported_as_gradient_disentangled(make_pair):
    split = networks.split_networks(make_pair().params, "embeddings")
    delta = networks.join_networks(split, "gradient_disentangled")["discriminator"]["embedding_delta"]
    assert all(not leaf.any() for leaf in named_leaves(delta).values())


def test_the_error_for_a_tying_that_would_lose_weights_names_the_right_one(make_pair):
    split = networks.split_networks(make_pair(tying="gradient_disentangled").params, "gradient_disentangled")
    with pytest.raises(UserError, match="use model.tying=gradient_disentangled"):
        networks.join_networks(split, "embeddings")


def test_two_networks_without_a_fitting_tying_are_refused(make_pair):
    split = networks.split_networks(make_pair().params, "embeddings")
    other = networks.split_networks(make_pair(seed=1, embedding_size=10).params, "embeddings")
    with pytest.raises(UserError, match="import one of them alone"):
        networks.detect_tying({DISCRIMINATOR: split[DISCRIMINATOR], GENERATOR: other[GENERATOR]})
