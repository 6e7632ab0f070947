"""The model and its loss against google-research/electra, run with the same weights and random draws.

c1 projects the discriminator's embeddings, c2 the generator's; c3 unties them; c4 samples uniformly; c5 ties
everything, forbids the original token, lowers the temperature and weights the losses. Tolerances are about ten times
the difference between two versions of TensorFlow.
"""

from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import oracle_numbers
import pytest
import quick

from electramed_jax.common import tree_rules
from electramed_jax.model import masking
from electramed_jax.pretrain.state import init_params

pytestmark = pytest.mark.slow  # each case builds and compiles a model


@pytest.fixture(scope="module", params=oracle_numbers.CASES)
def compared(request, shared_data):
    """The reference's results (`oracle`) and ours (`ours`), with masks.

    `vocab` is the number of real entries of the vocabulary, `used` marks masked slots, `token` marks tokens that are
    not padding.
    """
    oracle = oracle_numbers.load(shared_data, request.param)
    # The values of the padded rows of the vocabulary must not affect any result.
    ours = jax.device_get(oracle_numbers.evaluator(oracle)(oracle.params(padding=7.0)))
    return types.SimpleNamespace(
        oracle=oracle,
        ours=ours,
        vocab=oracle.config.model.vocab_size,
        used=oracle.outputs["masked_lm_weights"] > 0,
        token=oracle.inputs["input_mask"] > 0,
    )


def test_every_variable_maps_to_a_parameter_of_the_same_shape(compared):
    config = compared.oracle.config
    ours = jax.eval_shape(lambda: init_params(config))
    assert tree_rules.diff_trees(ours, compared.oracle.params(), "ours", "the reference") == []


def test_the_same_draws_mask_the_same_positions(compared, monkeypatch):
    oracle = compared.oracle
    ids_BT = jnp.asarray(oracle.inputs["input_ids"])
    special, objective = oracle.config.data.special, oracle.config.objective
    drawn_BM = oracle.inputs["sampled_positions"]
    max_predictions = drawn_BM.shape[1]
    # This project takes the highest scores, so the positions that the reference drew first get the highest.
    scores_BT = np.zeros(ids_BT.shape, np.float32)
    np.put_along_axis(scores_BT, drawn_BM, np.linspace(1, 0.5, max_predictions, dtype=np.float32)[None, :], axis=1)
    draws = iter([scores_BT, oracle.inputs["replace_uniform"]])
    monkeypatch.setattr(masking, "uniform_per_row", lambda key, shape: jnp.asarray(next(draws)).reshape(shape))

    key = jax.random.key(0)
    positions_BM, weights_BM = masking.choose_positions(
        key, ids_BT, special, objective.mask_probability, max_predictions
    )
    masked = masking.mask_tokens(key, ids_BT, positions_BM, weights_BM, special.mask, objective.mask_token_share)

    used = compared.used
    np.testing.assert_array_equal(weights_BM, oracle.outputs["masked_lm_weights"])
    np.testing.assert_array_equal(positions_BM[used], oracle.outputs["masked_lm_positions"][used])
    np.testing.assert_array_equal(masked.targets_BM[used], oracle.outputs["masked_lm_ids"][used])
    np.testing.assert_array_equal(masked.input_ids_BT, oracle.outputs["masked_input_ids"])


def test_segments_and_token_types_agree(compared):
    oracle = compared.oracle
    structure = compared.ours.recorded["structure"]
    np.testing.assert_array_equal(structure.segments_BT, oracle.inputs["input_mask"])
    np.testing.assert_array_equal(structure.token_types_BT, oracle.inputs["segment_ids"])
    index_BT = np.broadcast_to(np.arange(oracle.config.data.max_seq_length), compared.token.shape)
    np.testing.assert_array_equal(structure.positions_BT, index_BT * compared.token)


def test_generator_logits_agree_and_padded_entries_are_masked(compared):
    logits_BMV = compared.ours.recorded["generator_logits"]
    theirs_BMV = compared.oracle.outputs["generator_logits"]
    used = compared.used
    np.testing.assert_allclose(logits_BMV[used][:, : compared.vocab], theirs_BMV[used], atol=3e-5, rtol=0)
    assert (logits_BMV[..., compared.vocab :] <= -1e9).all()


def test_generator_predictions_agree(compared):
    outputs, used = compared.oracle.outputs, compared.used
    predicted = compared.ours.recorded["generator_logits"].argmax(axis=-1)
    np.testing.assert_array_equal(predicted[used], outputs["masked_lm_preds"][used])
    correct = (outputs["masked_lm_preds"] == outputs["masked_lm_ids"])[used].sum()
    assert compared.ours.sums["generator_correct_sum"] == correct
    assert (
        compared.ours.sums["sampled_correct_sum"] == (outputs["sampled_tokids"] == outputs["masked_lm_ids"])[used].sum()
    )


def test_the_discriminator_input_holds_the_samples(compared):
    np.testing.assert_array_equal(compared.ours.recorded["corrupted"], compared.oracle.outputs["disc_input_ids"])


def test_labels_agree_and_a_sample_equal_to_the_original_is_labelled_original(compared):
    corrupted, original = compared.ours.recorded["corrupted"], compared.oracle.inputs["input_ids"]
    np.testing.assert_array_equal(corrupted != original, compared.oracle.outputs["disc_labels"] == 1)
    assert compared.ours.sums["replaced_sum"] == compared.oracle.outputs["disc_labels"].sum()


def test_discriminator_logits_agree_at_every_token(compared):
    """Padding is excluded: here it attends to padding, in the reference to the row's tokens. No loss depends on it."""
    logits_BT, theirs_BT = compared.ours.recorded["discriminator_logits"], compared.oracle.outputs["disc_logits"]
    np.testing.assert_allclose(logits_BT[compared.token], theirs_BT[compared.token], atol=1e-5, rtol=0)


def test_discriminator_predictions_agree(compared):
    sums, outputs, token = compared.ours.sums, compared.oracle.outputs, compared.token
    predicted, replaced = (outputs["disc_preds"] == 1)[token], (outputs["disc_labels"] == 1)[token]
    assert sums["said_replaced_sum"] == predicted.sum()
    assert sums["found_replaced_sum"] == (predicted & replaced).sum()
    assert sums["discriminator_correct_sum"] == (predicted == replaced).sum()


def test_losses_agree(compared):
    ours, scalars = compared.ours, compared.oracle.scalars
    mlm_loss = ours.sums["generator_nll_sum"] / ours.sums["masked_count"]
    np.testing.assert_allclose(mlm_loss, scalars["mlm_loss"], rtol=1e-6)
    discriminator_loss = ours.sums["discriminator_nll_sum"] / ours.sums["token_count"]
    np.testing.assert_allclose(discriminator_loss, scalars["disc_loss"], rtol=1e-6)
    np.testing.assert_allclose(ours.loss, scalars["total_loss"], rtol=1e-6)


def test_gradients_of_every_variable_agree(compared):
    theirs = tree_rules.named_leaves(compared.oracle.params("grads"))  # zero in padded rows of the vocabulary
    for name, gradient in tree_rules.named_leaves(compared.ours.gradients).items():
        expected = oracle_numbers.without_key_bias(name, theirs[name])
        np.testing.assert_allclose(
            oracle_numbers.without_key_bias(name, gradient),
            expected,
            atol=2e-5 * np.abs(expected).max(),
            rtol=0,
            err_msg=name,
        )


def test_the_key_bias_cancels_out_of_the_softmax(compared):
    for name, gradient in tree_rules.named_leaves(compared.ours.gradients).items():
        if oracle_numbers.is_key_bias(name):
            assert np.abs(gradient[:, 1]).max() < 1e-6


@pytest.mark.parametrize("case", ["c1", "c5"])
def test_the_sampler_follows_the_distribution_of_the_reference(case, shared_data):
    """The reference takes an argmax of Gumbel-perturbed logits, this project inverts the cumulative distribution."""
    oracle = oracle_numbers.load(shared_data, case)
    objective, vocab = oracle.config.objective, oracle.config.model.vocab_size
    logits_V, target = oracle.outputs["generator_logits"][0, 0], oracle.outputs["masked_lm_ids"][0, 0]
    draws = 20_000
    padded_V = np.full(oracle.config.model.padded_vocab_size, -1e9, np.float32)
    padded_V[:vocab] = logits_V

    @quick.jit
    def sample(uniform_BM, padded_V):  # arguments: constants of this size would take the compiler minutes to fold
        return masking.sample_tokens(
            uniform_BM,
            jnp.broadcast_to(padded_V, (draws, 1, padded_V.size)),
            temperature=objective.temperature,
            forbidden_BM=jnp.full((draws, 1), target) if objective.disallow_correct else None,
        )

    lowered = 1000.0 * (np.arange(vocab) == target) * objective.disallow_correct
    probability_V = np.exp(logits_V / objective.temperature - lowered, dtype=np.float64)
    probability_V /= probability_V.sum()
    uniform_BM = jax.random.uniform(jax.random.key(1), (draws, 1))
    share_V = np.bincount(np.asarray(sample(uniform_BM, padded_V))[:, 0], minlength=vocab) / draws
    assert share_V.size == vocab
    # The standard error of a share is sqrt(p (1 - p) / draws): five of them, plus one draw for rare tokens.
    allowed_V = 5 * np.sqrt(probability_V / draws) + 1 / draws
    np.testing.assert_array_less(np.abs(share_V - probability_V), allowed_V)


def test_bfloat16_is_close_to_the_reference_and_keeps_losses_and_gradients_in_float32(shared_data):
    oracle = oracle_numbers.load(shared_data, "c2")
    model = dataclasses.replace(oracle.config.model, compute_dtype="bfloat16")
    bfloat16 = dataclasses.replace(oracle, config=dataclasses.replace(oracle.config, model=model))
    params = bfloat16.params()
    ours = jax.device_get(oracle_numbers.evaluator(bfloat16)(params))
    mlm_loss = ours.sums["generator_nll_sum"] / ours.sums["masked_count"]
    np.testing.assert_allclose(mlm_loss, oracle.scalars["mlm_loss"], rtol=5e-3)
    np.testing.assert_allclose(ours.loss, oracle.scalars["total_loss"], rtol=5e-3)
    results = (
        ours.gradients,
        ours.loss,
        ours.sums,
        ours.recorded["generator_logits"],
        ours.recorded["discriminator_logits"],
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(results)} == {np.dtype(np.float32)}

    # Without the bias, logits still have more digits than a bfloat16.
    params["generator"]["head"]["output_bias"] *= 0
    logits_BMV = oracle_numbers.evaluator(bfloat16)(params).recorded["generator_logits"]
    assert (logits_BMV.astype(jnp.bfloat16) != logits_BMV).mean() > 0.5
