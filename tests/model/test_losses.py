"""The ELECTRA loss and its sums, and the metrics computed from them against scikit-learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle_numbers
import pytest
import quick
import scipy.special
import sklearn.metrics
import small

from electramed_jax.config.pretrain import ObjectiveConfig
from electramed_jax.model import losses, masking
from electramed_jax.pretrain.state import merge_params
from electramed_jax.pretrain.step import eval_step
from electramed_jax.training import step

pytestmark = pytest.mark.slow

CONFIG = ObjectiveConfig()


def _scored(seed: int, *, rows: int = 40, length: int = 50):
    """Returns logits that correlate with their labels, some outside the histogram's range, and padding."""
    generator = np.random.default_rng(seed)
    replaced = generator.random((rows, length)) < 0.15
    logits = generator.normal(size=replaced.shape) * 3 + np.where(replaced, 0.5, -3.5)
    logits[generator.random(replaced.shape) < 0.01] *= 8
    in_use = np.arange(length) < generator.integers(1, length, size=(rows, 1))
    return logits.astype(np.float32), replaced, in_use


def _metrics(logits, replaced, in_use) -> dict[str, float]:
    """Returns the metrics of discriminator logits, with a generator that predicts nothing."""
    no_predictions = ("generator_nll_sum", "generator_correct_sum", "sampled_correct_sum", "masked_count")
    counts = {"token_count": in_use.sum(), "slot_count": in_use.any(axis=1).sum() * in_use.shape[1]}
    sums = losses.discriminator_sums(logits, replaced, in_use, with_auc=True)
    return losses.electra_metrics(dict.fromkeys(no_predictions, 0.0) | counts | sums, CONFIG)


# ---- the discriminator's metrics -----------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_discriminator_metrics_equal_those_of_scikit_learn(seed):
    logits, replaced, in_use = _scored(seed)
    metrics = _metrics(logits, replaced, in_use)

    truth, score = replaced[in_use], logits[in_use].astype(np.float64)
    predicted = score > 0
    assert metrics["discriminator_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted))
    assert metrics["discriminator_precision"] == pytest.approx(sklearn.metrics.precision_score(truth, predicted))
    assert metrics["discriminator_recall"] == pytest.approx(sklearn.metrics.recall_score(truth, predicted))
    assert metrics["discriminator_auc"] == pytest.approx(sklearn.metrics.roc_auc_score(truth, score), abs=1e-3)
    log_loss = sklearn.metrics.log_loss(truth, scipy.special.expit(score))
    assert metrics["discriminator_loss"] == pytest.approx(log_loss, rel=1e-5)
    assert metrics["replaced_fraction"] == pytest.approx(truth.mean())


def test_padding_is_never_counted():
    logits, replaced, in_use = _scored(2)
    sums = losses.discriminator_sums(logits, replaced, in_use, with_auc=True)
    # Neither easy negatives nor errors at padding change a sum.
    for padding_logit, padding_label in ((-50.0, False), (50.0, False), (-50.0, True)):
        others = losses.discriminator_sums(
            np.where(in_use, logits, np.float32(padding_logit)),
            np.where(in_use, replaced, padding_label),
            in_use,
            with_auc=True,
        )
        jax.tree.map(np.testing.assert_array_equal, others, sums)


def test_uninformative_logits_have_an_auc_of_one_half():
    ties = np.array([0.0, 5.0, 0.0, 2.0])
    assert losses.roc_auc(ties, 3 * ties) == 0.5
    assert losses.roc_auc(ties, np.zeros(4)) == 0.5
    assert losses.roc_auc(np.zeros(4), ties) == 0.5


def test_perfect_and_inverted_logits_have_aucs_of_one_and_zero():
    low, high = np.array([4.0, 1, 0, 0]), np.array([0, 0, 2.0, 7])
    assert losses.roc_auc(high, low) == 1.0
    assert losses.roc_auc(low, high) == 0.0


def test_precision_and_recall_are_zero_without_replaced_and_predicted_tokens():
    metrics = _metrics(np.full((2, 3), -1.0), np.zeros((2, 3), bool), np.ones((2, 3), bool))
    assert metrics["discriminator_precision"] == metrics["discriminator_recall"] == 0.0
    assert metrics["discriminator_accuracy"] == 1.0


def test_the_loss_of_huge_logits_is_finite_and_so_is_its_gradient():
    def loss(logits):
        return losses.discriminator_sums(logits, jnp.array([[True, False]]), jnp.ones((1, 2), bool))[
            "discriminator_nll_sum"
        ]

    value, gradient = jax.value_and_grad(loss)(jnp.array([[-1e4, 1e4]]))
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[-1, 1]])


# ---- the loss ------------------------------------------------------------------------------------

LENGTH = 16
IDS = np.stack(  # three full rows, three short ones
    [
        small.row(small.document(4, 2), small.document(3, 1, seed=1), length=LENGTH),
        small.row(small.document(14, seed=2), length=LENGTH),
        small.row(small.document(5, 5, seed=3), length=LENGTH),
        small.row(small.document(2, seed=4), length=LENGTH),
        small.row(small.document(1, seed=5), small.document(1, seed=6), length=LENGTH),
        small.row(small.document(3, seed=7), length=LENGTH),
    ]
)
NOTHING = np.zeros((3, LENGTH), np.int32)  # rows of padding


@pytest.fixture(scope="module")
def evaluate():
    """A function of (ids, masked, sampled ids) that returns (loss, sums, recorded arrays, gradients)."""
    config = small.config(LENGTH)
    params = small.noisy_params(config)

    @quick.jit
    def run(params, ids_BT, masked, sampled_BM):
        def loss(params):
            recorder = oracle_numbers.Recorder(merge_params(config, params))
            structure = masking.packed_segments(ids_BT, small.SPECIAL)
            value, sums = losses.electra_loss(
                recorder, ids_BT, masked, structure, config.objective, sample=lambda _: sampled_BM
            )
            return value, (sums, recorder.recorded)

        (value, (sums, recorded)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return value, sums, recorded, gradients

    return lambda ids_BT, masked, sampled_BM: jax.device_get(run(params, ids_BT, masked, sampled_BM))


def _masked(ids_BT: np.ndarray, seed: int = 0) -> masking.MaskedTokens:
    choose = quick.jit(masking.choose_positions, static_argnums=(2, 3, 4))
    positions_BM, weights_BM = choose(jax.random.key(seed), ids_BT, small.SPECIAL, 0.3, 4)
    mask = quick.jit(masking.mask_tokens, static_argnums=(4, 5))
    return mask(jax.random.key(seed), ids_BT, positions_BM, weights_BM, small.SPECIAL.mask, 0.85)


def _rows(masked: masking.MaskedTokens, rows: slice) -> masking.MaskedTokens:
    return masking.MaskedTokens(*[x[rows] for x in masked])


def _other_words(masked: masking.MaskedTokens) -> np.ndarray:
    return np.where(np.asarray(masked.targets_BM) == 20, 21, 20)


def test_rows_of_padding_change_neither_loss_nor_gradient(evaluate):
    ids_BT = np.concatenate([IDS[:3], NOTHING])
    masked = _masked(ids_BT)
    assert (masked.weights_BM[3:] == 0).all()
    sampled_BM = _other_words(masked)
    loss, sums, _, gradients = evaluate(ids_BT, masked, sampled_BM)
    expected = evaluate(IDS[:3], _rows(masked, slice(3)), sampled_BM[:3])
    assert loss == pytest.approx(expected[0], rel=1e-6)
    for name in sums:
        assert sums[name] == pytest.approx(expected[1][name], rel=1e-6), name
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), gradients, expected[3])


def test_sums_of_the_parts_of_a_batch_add_up_to_those_of_the_batch(evaluate):
    """The mean of the parts' means would give tokens of short rows a larger weight."""
    masked = _masked(IDS)
    sampled_BM = _other_words(masked)
    whole, sums, _, _ = evaluate(IDS, masked, sampled_BM)
    parts = [evaluate(IDS[rows], _rows(masked, rows), sampled_BM[rows]) for rows in (slice(3), slice(3, 6))]
    added = step.sum_metrics([part[1] for part in parts])
    for name, value in sums.items():
        assert added[name] == pytest.approx(value, rel=1e-6), name
    assert losses.electra_metrics(added, CONFIG)["loss"] == pytest.approx(whole, rel=1e-6)
    assert np.mean([part[0] for part in parts]) != pytest.approx(whole, rel=1e-3)


def test_a_sample_equal_to_the_original_is_labelled_original(evaluate):
    masked = _masked(IDS)
    used = np.asarray(masked.weights_BM) > 0
    correct = used & (np.arange(4) % 2 == 0)
    sampled_BM = np.where(correct, masked.targets_BM, _other_words(masked))
    _, sums, recorded, _ = evaluate(IDS, masked, sampled_BM)
    assert sums["masked_count"] == used.sum()
    assert sums["sampled_correct_sum"] == correct.sum()
    assert sums["replaced_sum"] == (used & ~correct).sum() == (recorded["corrupted"] != IDS).sum()


@pytest.mark.parametrize("token", ["cls", "sep", "pad"])
def test_a_sampled_special_token_changes_no_segments_and_no_counts(evaluate, token):
    masked = _masked(IDS)
    first_only = masked._replace(
        positions_BM=jnp.full((6, 4), LENGTH).at[:, 0].set(1), weights_BM=jnp.zeros((6, 4)).at[:, 0].set(1)
    )
    _, _, before, _ = evaluate(IDS, first_only, np.full((6, 4), 20))
    _, sums, after, _ = evaluate(IDS, first_only, np.full((6, 4), getattr(small.SPECIAL, token)))
    jax.tree.map(
        np.testing.assert_array_equal, after["structure"], masking.packed_segments(jnp.asarray(IDS), small.SPECIAL)
    )
    assert sums["token_count"] == (IDS != small.SPECIAL.pad).sum()
    assert sums["replaced_sum"] == 6
    difference_BT = np.abs(after["discriminator_logits"] - before["discriminator_logits"])
    in_first_document = before["structure"].segments_BT == 1
    assert (difference_BT[in_first_document] > 0).all()
    assert (difference_BT[~in_first_document] == 0).all()


def test_a_batch_with_nothing_to_mask_has_a_finite_loss_and_gradient(evaluate):
    ids_BT = np.tile(small.row(small.document(0), small.document(0), length=LENGTH), (6, 1))
    masked = _masked(ids_BT)
    assert (masked.weights_BM == 0).all()
    loss, sums, _, gradients = evaluate(ids_BT, masked, np.full((6, 4), 20))
    assert sums["masked_count"] == sums["generator_nll_sum"] == sums["replaced_sum"] == 0
    assert loss == pytest.approx(50 * sums["discriminator_nll_sum"] / sums["token_count"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


# ---- settings ------------------------------------------------------------------------------------


def _sums_of_a_biased_generator(bias: float, **objective) -> dict[str, np.ndarray]:
    """Returns the sums of a batch that repeats one word, for a generator whose output bias favours that word by `bias`."""
    config = small.config(LENGTH, objective=ObjectiveConfig(**objective))
    params = jax.tree.map(np.zeros_like, small.noisy_params(config))
    params["generator"]["head"]["output_bias"][20] = bias
    ids_BT = np.where(IDS >= small.FIRST_WORD, 20, IDS)

    @quick.jit
    def run(params):
        return small.loss_and_sums(config, params, ids_BT)[1]

    return jax.device_get(run(params))


def test_a_certain_generator_samples_the_original_unless_disallow_correct_is_set():
    sums = _sums_of_a_biased_generator(60.0)
    assert sums["sampled_correct_sum"] == sums["generator_correct_sum"] == sums["masked_count"] > 0
    sums = _sums_of_a_biased_generator(60.0, disallow_correct=True)
    assert sums["sampled_correct_sum"] == 0
    assert sums["replaced_sum"] == sums["masked_count"]


def test_a_low_temperature_samples_the_most_likely_token():
    assert _sums_of_a_biased_generator(1.0)["sampled_correct_sum"] < 3
    sums = _sums_of_a_biased_generator(1.0, temperature=0.01)
    assert sums["sampled_correct_sum"] == sums["masked_count"]


def test_the_mlm_objective_has_no_discriminator():
    class GeneratorOnly:
        def generator_logits(self, masked, structure, key):
            return jnp.zeros((6, 4, 150))

    masked = _masked(IDS)
    config = ObjectiveConfig(kind="mlm", generator_weight=2.0)
    loss, sums = losses.electra_loss(
        GeneratorOnly(),
        jnp.asarray(IDS),
        masked,
        masking.packed_segments(jnp.asarray(IDS), small.SPECIAL),
        config,
        sample=lambda _: masked.targets_BM,
    )
    assert loss == pytest.approx(2 * np.log(150))
    metrics = losses.electra_metrics(sums, config)
    assert metrics["loss"] == pytest.approx(loss)
    assert not any(name.startswith("discriminator") for name in metrics)


def test_the_corrective_loss_is_the_cross_entropy_of_the_original_tokens_at_masked_positions():
    """The oracle is torch's cross-entropy of the discriminator's hidden states through the head and the word table."""
    torch = pytest.importorskip("torch")
    objective = ObjectiveConfig(corrective_weight=3.0)
    config = small.config(LENGTH, objective=objective)
    params, masked = small.noisy_params(config), _masked(IDS)
    sampled_BM = jnp.asarray(_other_words(masked))
    structure = masking.packed_segments(jnp.asarray(IDS), small.SPECIAL)

    @quick.jit
    def run(params):
        model = merge_params(config, params)
        loss, sums = losses.electra_loss(
            model, jnp.asarray(IDS), masked, structure, objective, sample=lambda _: sampled_BM
        )
        corrupted_BT = masking.scatter_tokens(jnp.asarray(IDS), masked.positions_BM, sampled_BM)
        return loss, sums, model.discriminator_hidden(corrupted_BT, structure)

    loss, sums, h_BTD = jax.device_get(run(params))
    head = jax.tree.map(torch.tensor, params["discriminator"]["corrective_head"])
    word_VE = torch.tensor(params["embeddings"]["word"])[: config.model.vocab_size]
    x = torch.tensor(h_BTD) @ head["dense"]["kernel"] + head["dense"]["bias"]
    x = torch.nn.functional.gelu(x)
    x = torch.nn.functional.layer_norm(x, x.shape[-1:], head["norm"]["scale"], head["norm"]["bias"], eps=1e-12)
    logits_BTV = x @ word_VE.T + head["output_bias"][: config.model.vocab_size]
    used_BM = np.asarray(masked.weights_BM) > 0
    rows, positions = np.nonzero(used_BM)[0], np.asarray(masked.positions_BM)[used_BM]
    targets = torch.tensor(np.asarray(masked.targets_BM)[used_BM], dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(logits_BTV[rows, positions], targets)

    metrics = losses.electra_metrics(sums, objective)
    assert metrics["corrective_loss"] == pytest.approx(float(expected), rel=1e-4)
    others = metrics["generator_loss"] + 50 * metrics["discriminator_loss"]
    assert metrics["loss"] == pytest.approx(others + 3 * metrics["corrective_loss"]) == loss


def test_a_uniform_generator_has_no_correct_predictions():
    """All its logits are equal, so no token is its best."""
    config = small.config(objective=ObjectiveConfig(kind="uniform"))
    params = small.noisy_params(config)
    ids = jnp.asarray(np.stack([small.row(small.document(12, seed=n), length=16) for n in range(4)]))
    sums = quick.jit(eval_step(config))(params, {"input_ids": ids}, jnp.int32(0))
    assert sums["masked_count"] > 0 and sums["generator_correct_sum"] == 0


def test_the_gradient_of_the_negative_log_likelihood_equals_that_of_torch():
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(0)
    logits_BMV, targets_BM = generator.normal(size=(2, 3, 50)).astype(np.float32), generator.integers(0, 50, (2, 3))
    weights_BM = generator.uniform(size=(2, 3)).astype(np.float32)

    def weighted(logits_BMV):
        return jnp.sum(losses.negative_log_likelihood(logits_BMV, jnp.asarray(targets_BM)) * weights_BM)

    theirs = torch.tensor(logits_BMV, requires_grad=True)
    nll = torch.nn.functional.cross_entropy(theirs.flatten(0, 1), torch.tensor(targets_BM.ravel()), reduction="none")
    (nll * torch.tensor(weights_BM.ravel())).sum().backward()
    np.testing.assert_allclose(jax.grad(weighted)(logits_BMV), theirs.grad, rtol=1e-5, atol=1e-7)
