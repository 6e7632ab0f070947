"""Electric against the equations of its paper, by brute force on tiny vocabularies.

Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", section 2.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quick
import scipy.optimize
import small

from electramed_jax.config.pretrain import ObjectiveConfig
from electramed_jax.model import losses, masking
from electramed_jax.pretrain.state import init_params, merge_params

pytestmark = pytest.mark.slow

ELECTRIC = ObjectiveConfig(kind="electric")
LENGTH, WORDS = 12, 7  # of a row; [CLS], words, [SEP] and padding
IDS = np.stack([small.row(small.document(WORDS, seed=n), length=LENGTH) for n in range(4)])
CONFIG = small.config(LENGTH, objective=ELECTRIC)
STRUCTURE = masking.packed_segments(jnp.asarray(IDS), small.SPECIAL)
CANDIDATES = masking.maskable(jnp.asarray(IDS), small.SPECIAL)


@pytest.fixture(scope="module")
def params():
    return jax.tree.map(jnp.asarray, small.noisy_params(CONFIG))


@pytest.fixture(scope="module")
def states(params):
    """Returns a function from ids [B, T] to the hidden states of the generator and its -log q of every token."""

    @quick.jit
    def compute(ids_BT):
        model = merge_params(CONFIG, params)
        h_BTD = model.generator_hidden(ids_BT, masking.packed_segments(ids_BT, small.SPECIAL))
        return h_BTD, model.token_nll(h_BTD, ids_BT)[0]

    return lambda ids_BT: jax.device_get(compute(jnp.asarray(ids_BT)))


# ---- the generator -------------------------------------------------------------------------------


def test_the_prediction_of_a_token_depends_on_every_other_token_and_not_on_itself(states):
    """The two towers see the tokens before it and those after it."""
    h_BTD, _ = states(IDS)
    for position in range(1, WORDS + 1):
        changed = IDS.copy()
        changed[:, position] = np.where(IDS[:, position] == 20, 21, 20)
        difference_T = np.abs(states(changed)[0] - h_BTD).max(axis=(0, 2))
        assert difference_T[position] == 0
        others = [one for one in range(1, WORDS + 1) if one != position]
        assert (difference_T[others] > 0).all()


def test_a_document_is_not_predicted_from_its_neighbours_in_the_row(states):
    alone = np.stack([small.row(small.document(3, seed=1), length=LENGTH)])
    packed = np.stack([small.row(small.document(3, seed=1), small.document(4, seed=2), length=LENGTH)])
    np.testing.assert_allclose(states(packed)[1][:, 1:4], states(alone)[1][:, 1:4], rtol=1e-5)


def test_the_probabilities_of_a_position_sum_to_one_over_the_vocabulary(states, params):
    """token_nll of each token of the vocabulary at one position, one after the other."""
    rows = np.repeat(IDS[:1], CONFIG.model.vocab_size, axis=0)
    rows[:, 4] = np.arange(CONFIG.model.vocab_size)
    _, nll_BT = states(np.concatenate([rows[small.FIRST_WORD :], IDS[:1]]))
    words = np.exp(-nll_BT[:-1, 4]).sum()

    model = merge_params(CONFIG, params)
    h_BTD = states(IDS[:1])[0]
    logits_V = np.asarray(model.token_logits(jnp.asarray(h_BTD), jnp.array([[4]])))[0, 0]
    probabilities_V = np.exp(logits_V - np.logaddexp.reduce(logits_V))
    assert words == pytest.approx(probabilities_V[small.FIRST_WORD : CONFIG.model.vocab_size].sum(), rel=1e-4)
    assert probabilities_V[CONFIG.model.vocab_size :].sum() == 0, "padded entries are never sampled"


# ---- the loss ------------------------------------------------------------------------------------


def test_the_loss_is_the_noise_contrastive_loss_of_the_paper(params):
    """Equation 3: -log(n p / (n p + k q)) of data and -log(k q / (k q + n p)) of noise, with p = exp(-energy)."""
    positions_BM = jnp.tile(jnp.array([[2, 5]]), (4, 1))
    targets_BM = masking.gather_positions(jnp.asarray(IDS), positions_BM)
    masked = masking.MaskedTokens(positions_BM, jnp.ones((4, 2)), targets_BM, jnp.asarray(IDS))
    sampled_BM = targets_BM.at[:, 0].set(20)  # the second sample equals the original and is noise all the same
    loss, sums = _loss(params, masked, sampled_BM)

    model = merge_params(CONFIG, params)
    h_BTD = model.generator_hidden(jnp.asarray(IDS), STRUCTURE)
    corrupted_BT = np.asarray(masking.scatter_tokens(jnp.asarray(IDS), positions_BM, sampled_BM))
    energy_BT = np.asarray(model.discriminator_logits(jnp.asarray(corrupted_BT), STRUCTURE), np.float64)
    total, cloze, n, k = 0.0, 0.0, WORDS - 2, 2
    for row, position in itertools.product(range(4), range(1, WORDS + 1)):
        logits_V = np.asarray(model.token_logits(h_BTD[row : row + 1], jnp.array([[position]])), np.float64)[0, 0]
        log_q_V = logits_V - np.logaddexp.reduce(logits_V)
        cloze -= log_q_V[IDS[row, position]]
        p, q = np.exp(-energy_BT[row, position]), np.exp(log_q_V[corrupted_BT[row, position]])
        total -= np.log((k * q if position in (2, 5) else n * p) / (n * p + k * q))
    count = 4 * WORDS
    assert sums["candidate_count"] == count and sums["noise_count"] == sums["replaced_sum"] == 8
    assert sums["sampled_correct_sum"] == 4
    assert sums["discriminator_nll_sum"] == pytest.approx(total, rel=1e-4)
    assert sums["generator_nll_sum"] == pytest.approx(cloze, rel=1e-4)
    assert loss == pytest.approx((cloze + 50 * total) / count, rel=1e-4)
    metrics = losses.electra_metrics(sums, ELECTRIC)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5) and metrics["sampled_accuracy"] == 0.5


def _loss(params, masked, sampled_BM):
    @quick.jit
    def compute(params):
        return losses.electric_loss(
            merge_params(CONFIG, params),
            jnp.asarray(IDS),
            masked,
            STRUCTURE,
            ELECTRIC,
            candidates_BT=CANDIDATES,
            sample=lambda _: sampled_BM,
        )

    return jax.device_get(compute(params))


def test_the_energies_of_the_smallest_loss_are_the_negative_log_probabilities_of_the_data():
    """For a vocabulary of 5 words, one row of n tokens and k noise tokens, summed over all outcomes.

    The minimum does not depend on q. That is why exp(-energy) may be read as a probability without a partition
    function.
    """
    data = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    noise = np.array([0.1, 0.1, 0.2, 0.2, 0.4])
    ids_BT = jnp.asarray(np.tile(np.arange(5, 10), (2, 1)))  # each word once as data and once as noise
    masked_BM = jnp.stack([jnp.full((5,), 5), jnp.arange(5)])  # none in the first row, all in the second
    candidates_BT = jnp.ones((2, 5), bool)
    masked = masking.MaskedTokens(masked_BM, jnp.float32(masked_BM < 5), ids_BT, ids_BT)
    logits_BMV = jnp.broadcast_to(jnp.log(jnp.asarray([1e-30] * 5 + noise.tolist())), (2, 5, 10))
    noised = losses.electric_noise(ids_BT, masked, candidates_BT, ids_BT, logits_BMV, jnp.tile(-jnp.log(noise), (2, 1)))
    np.testing.assert_array_equal(noised.is_noise_BT, [[False] * 5, [True] * 5])
    n, k = 17.0, 3.0
    log_q = np.log(noise)
    np.testing.assert_allclose(noised.log_odds_BT, [log_q - np.log(5), log_q + np.log(5)], rtol=1e-5)

    def expected_loss(energies: np.ndarray) -> float:
        logits = energies + log_q + np.log(k / n)  # log_odds of a row with n - k = 17 and k = 3
        return float(n * data @ np.logaddexp(0, logits) + k * noise @ np.logaddexp(0, -logits))

    best = scipy.optimize.minimize(expected_loss, np.zeros(5), tol=1e-10).x
    np.testing.assert_allclose(best, -np.log(data), atol=1e-3)


def test_rows_of_padding_change_nothing(params):
    padded_BT = jnp.concatenate([jnp.asarray(IDS), jnp.zeros((2, LENGTH), jnp.int32)])
    used_61 = (jnp.arange(6) < 4)[:, None]
    masked = masking.MaskedTokens(
        jnp.where(used_61, jnp.array([[2, 5]]), LENGTH),
        jnp.float32(used_61) * jnp.ones((1, 2)),
        jnp.full((6, 2), 20),
        padded_BT,
    )

    def compute(params):
        return losses.electric_loss(
            merge_params(CONFIG, params),
            padded_BT,
            masked,
            masking.packed_segments(padded_BT, small.SPECIAL),
            ELECTRIC,
            candidates_BT=masking.maskable(padded_BT, small.SPECIAL),
            sample=lambda _: jnp.full((6, 2), 21),
        )

    (loss, sums), gradients = quick.jit(jax.value_and_grad(compute, has_aux=True))(params)
    alone, expected = _loss(params, masking.MaskedTokens(*[x[:4] for x in masked]), jnp.full((4, 2), 21))
    assert loss == pytest.approx(alone, rel=1e-5)
    for name, value in expected.items():
        assert sums[name] == pytest.approx(value, rel=1e-5), name
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_the_energy_has_no_gradient_into_the_generator():
    """q is a constant of the contrastive loss: a generator that could lower it would become easy to tell from text."""
    objective = ObjectiveConfig(kind="electric", generator_weight=0.0)
    config = small.config(LENGTH, objective=objective, tying="none")
    gradients = quick.jit(jax.grad(lambda params: small.loss_and_sums(config, params, IDS)[0]))(
        small.noisy_params(config)
    )
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradients["generator"]))
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients["discriminator"]["layers"]))


def test_the_parameters_of_both_towers_are_initialized_separately():
    generator = quick.jit(lambda: init_params(CONFIG))()["generator"]
    left, right = (
        generator[tower]["layers"]["feed_forward"]["up"]["kernel"] for tower in ("left_to_right", "right_to_left")
    )
    assert not np.array_equal(left, right)
    assert generator["head"]["dense"]["kernel"].shape == (24, 8), "both states, to the width of the embeddings"
