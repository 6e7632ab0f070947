"""The rules between our leaves and Hugging Face's tensors cover both sides and are invertible."""

from __future__ import annotations

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.hf.format import mapping, tying
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, NETWORKS, Sizes

LAYER = "electra.encoder.layer.0."
LINEARS = ["attention.self.query", "attention.self.key", "attention.self.value"]
LINEARS += ["attention.output.dense", "intermediate.dense", "output.dense"]
NORMS = ["attention.output.LayerNorm", "output.LayerNorm"]


def both(names: list[str]) -> set[str]:
    return {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}


# Tensors of transformers 5.23's classes with one layer and embedding_size != hidden_size, without the
# tied matrix.
ENCODER = {f"electra.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
ENCODER |= both(["electra.embeddings.LayerNorm", "electra.embeddings_project"])
ENCODER |= both([LAYER + name for name in LINEARS + NORMS])
STATE_DICT = {
    DISCRIMINATOR: ENCODER | both(["discriminator_predictions.dense", "discriminator_predictions.dense_prediction"]),
    GENERATOR: ENCODER
    | both(["generator_predictions.LayerNorm", "generator_predictions.dense"])
    | {"generator_lm_head.bias"},
}


@pytest.fixture
def one(make_pair):
    """Returns one(network, **sizes): (leaves, sizes) of one network of a random pair."""

    def make(network: str, **sizes):
        pair = make_pair(**sizes)
        return tying.split_networks(pair.params, pair.model.tying)[network], Sizes.from_model_config(
            pair.model, network
        )

    return make


@pytest.mark.parametrize("network", NETWORKS)
def test_the_tensors_of_a_one_layer_network_are_those_transformers_saves(one, network):
    leaves, sizes = one(network, num_layers=1, generator_num_layers=1)
    assert set(mapping.to_hf_tensors(leaves, sizes, network)) == STATE_DICT[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_widths_have_no_projection(one, network):
    leaves, sizes = one(network, embedding_size=16, generator_hidden_size=16)
    assert not [name for name in mapping.to_hf_tensors(leaves, sizes, network) if "project" in name]


@pytest.mark.parametrize("network", NETWORKS)
def test_every_rule_has_a_leaf_and_a_tensor_of_its_own(one, network):
    leaves, sizes = one(network)
    rules = mapping.tensor_rules(network, sizes)
    assert sorted(rule.ours for rule in rules) == sorted(leaves)
    assert len({rule.theirs for rule in rules}) == len(rules)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_round_trip_through_tensors_is_exact(one, network):
    leaves, sizes = one(network)
    again = mapping.from_hf_tensors(mapping.to_hf_tensors(leaves, sizes, network), sizes, network)
    assert set(again) == set(leaves)
    for name, leaf in leaves.items():
        real = leaf if leaf.shape[0] != sizes.axis_lengths(padded=True)["V"] else leaf[: sizes.vocab_size]
        np.testing.assert_array_equal(again[name][: len(real)], real, err_msg=name)
        assert not again[name][len(real) :].any(), name


def test_a_head_of_the_query_is_a_band_of_rows_of_its_weight(one):
    leaves, sizes = one(DISCRIMINATOR)
    tensors = mapping.to_hf_tensors(leaves, sizes, DISCRIMINATOR)
    head_size = sizes.hidden_size // sizes.num_heads
    for number, name in enumerate(("query", "key", "value")):
        weight = tensors[f"electra.encoder.layer.1.attention.self.{name}.weight"]
        bias = tensors[f"electra.encoder.layer.1.attention.self.{name}.bias"]
        second_head = slice(head_size, 2 * head_size)
        kernel_DH = leaves["layers/attention/qkv/kernel"][1, :, number, 1, :]
        np.testing.assert_array_equal(weight[second_head], kernel_DH.T)
        np.testing.assert_array_equal(bias[second_head], leaves["layers/attention/qkv/bias"][1, number, 1])
    out = tensors["electra.encoder.layer.1.attention.output.dense.weight"]
    np.testing.assert_array_equal(out[:, second_head], leaves["layers/attention/out/kernel"][1, 1].T)


@pytest.mark.parametrize("network", NETWORKS)
def test_tensors_are_contiguous_because_safetensors_stores_views_wrongly(one, network):
    tensors = mapping.to_hf_tensors(*one(network), network)
    assert [name for name, tensor in tensors.items() if not tensor.flags.c_contiguous] == []


def test_the_vocabulary_is_exported_without_its_padding(one):
    leaves, sizes = one(GENERATOR)
    assert leaves["embeddings/word"].shape[0] == leaves["head/output_bias"].shape[0] == 128
    tensors = mapping.to_hf_tensors(leaves, sizes, GENERATOR)
    assert tensors[mapping.WORD_TABLE].shape[0] == sizes.vocab_size
    assert tensors["generator_lm_head.bias"].shape == (sizes.vocab_size,)


def test_the_error_of_an_import_lists_missing_unknown_and_misshapen_tensors(one):
    leaves, sizes = one(DISCRIMINATOR)
    tensors = mapping.to_hf_tensors(leaves, sizes, DISCRIMINATOR)
    del tensors["discriminator_predictions.dense.bias"]
    tensors["classifier.weight"] = np.zeros((2, 16), np.float32)
    tensors["electra.embeddings_project.weight"] = np.zeros((12, 16), np.float32)
    with pytest.raises(UserError) as error:
        mapping.from_hf_tensors(tensors, sizes, DISCRIMINATOR)
    message = str(error.value)
    assert "missing: discriminator_predictions.dense.bias;" in message
    assert "unknown: classifier.weight;" in message
    assert "electra.embeddings_project.weight [12, 16] instead of [16, 12]" in message


def test_the_error_for_a_whole_network_is_one_short_line(one):
    _, sizes = one(DISCRIMINATOR)
    with pytest.raises(UserError, match="and 37 more$") as error:
        mapping.from_hf_tensors({}, sizes, DISCRIMINATOR)
    assert len(str(error.value)) < 600


def test_an_export_refuses_parameters_that_do_not_fit_the_configuration(one, make_pair):
    leaves, _ = one(DISCRIMINATOR)
    wider = Sizes.from_model_config(make_pair(intermediate_size=24).model, DISCRIMINATOR)
    with pytest.raises(UserError, match=r"feed_forward/up/kernel \[2, 16, 20\] instead of \[2, 16, 24\]"):
        mapping.to_hf_tensors(leaves, wider, DISCRIMINATOR)


def test_buffers_and_the_tied_matrix_of_older_files_are_ignored(one):
    leaves, sizes = one(GENERATOR)
    tensors = mapping.to_hf_tensors(leaves, sizes, GENERATOR)
    old = dict(tensors)
    old["electra.embeddings.position_ids"] = np.arange(sizes.max_positions)[None]
    old["generator_lm_head.weight"] = tensors[mapping.WORD_TABLE].copy()
    again, plain = (mapping.from_hf_tensors(t, sizes, GENERATOR) for t in (old, tensors))
    for name in plain:
        np.testing.assert_array_equal(again[name], plain[name])


def test_an_untied_output_matrix_is_refused(one):
    leaves, sizes = one(GENERATOR)
    tensors = mapping.to_hf_tensors(leaves, sizes, GENERATOR)
    tensors["generator_lm_head.weight"] = tensors[mapping.WORD_TABLE] + 1
    with pytest.raises(UserError, match="tie_word_embeddings=true"):
        mapping.from_hf_tensors(tensors, sizes, GENERATOR)
