"""Choice of masked positions, sampling of replacements, and segments of packed rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import oracle_numbers
import pytest
import quick
import scipy.stats
from small import FIRST_WORD, SPECIAL, document, row

from electramed_jax.config.pretrain import Config, DataConfig, ObjectiveConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.model import masking

PAD, UNK, CLS, SEP, MASK = SPECIAL.pad, SPECIAL.unk, SPECIAL.cls, SPECIAL.sep, SPECIAL.mask

choose_positions = quick.jit(masking.choose_positions, static_argnums=(2, 3, 4))
mask = quick.jit(masking.mask_tokens, static_argnums=(4, 5))


@pytest.fixture(scope="module")
def helpers(shared_data):
    return oracle_numbers.read(shared_data / "oracle" / "helpers.npz")


@pytest.fixture(scope="module")
def rows():
    """Rows of 0 to 4 documents with padding, some [UNK] and some literal [MASK] tokens."""
    generator = np.random.default_rng(0)
    built = [np.full(64, PAD)]
    for seed in range(63):
        lengths = generator.integers(1, 10, size=(generator.integers(1, 5), 2))
        built.append(row(*[document(a, b - 1, seed) for a, b in lengths.tolist()], length=64))
    ids_BT = np.stack(built).astype(np.int32)
    words = ids_BT >= FIRST_WORD
    ids_BT[words & (generator.random(ids_BT.shape) < 0.05)] = UNK
    ids_BT[words & (generator.random(ids_BT.shape) < 0.02)] = MASK
    return jnp.asarray(ids_BT)


# ---- number of predictions -----------------------------------------------------------------------


@pytest.mark.parametrize(("row_length", "probability"), [(128, 0.15), (128, 0.25), (512, 0.15), (512, 0.25)])
def test_the_number_of_predictions_equals_the_reference_for_every_length(helpers, row_length, probability):
    name = f"n_predict/{row_length}_{probability}"
    config = Config(objective=ObjectiveConfig(mask_probability=probability), data=DataConfig(max_seq_length=row_length))
    assert config.max_predictions == helpers[f"{name}/max_predictions_per_seq"]
    ours = masking.num_predictions(jnp.asarray(helpers[f"{name}/num_tokens"]), probability, config.max_predictions)
    np.testing.assert_array_equal(ours, helpers[f"{name}/num_to_predict"])


def test_halves_round_to_even_and_the_number_is_between_one_and_the_maximum():
    tokens = jnp.array([0, 3, 10, 14, 100])
    np.testing.assert_array_equal(masking.num_predictions(tokens, 0.25, 8), [1, 1, 2, 4, 8])


# ---- choice of positions -------------------------------------------------------------------------


def test_maskable_tokens_equal_the_candidates_of_the_reference(helpers):
    ids_BT = jnp.asarray(helpers["candidates/input_ids"])
    special = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
    # The reference detects padding by its mask and treats a 0 in the text as a word. Here every 0 is padding.
    expected_BT = helpers["candidates/mask"] & (helpers["candidates/input_ids"] != 0)
    assert expected_BT.sum() == helpers["candidates/mask"].sum() - 1
    np.testing.assert_array_equal(masking.maskable(ids_BT, special), expected_BT)


def test_positions_are_distinct_maskable_and_of_the_requested_number(rows):
    positions_BM, weights_BM = jax.tree.map(np.asarray, choose_positions(jax.random.key(0), rows, SPECIAL, 0.3, 12))
    for ids, positions, weights in zip(np.asarray(rows), positions_BM, weights_BM, strict=True):
        chosen = positions[weights == 1]
        assert set(weights) <= {0.0, 1.0}
        assert (positions[weights == 0] == rows.shape[1]).all(), "unused slots are outside the row"
        assert len(set(chosen)) == len(chosen)
        allowed = ~np.isin(ids, [PAD, CLS, SEP, MASK])
        assert allowed[chosen].all()
        wanted = max(1, min(12, round(0.3 * (ids != PAD).sum())))
        assert len(chosen) == min(wanted, allowed.sum())


def test_a_row_with_few_maskable_tokens_masks_only_those():
    rows = jnp.stack([row(document(0), document(0), length=8), row(document(1), *[document(0)] * 2, length=8)])
    positions_BM, weights_BM = choose_positions(jax.random.key(0), rows, SPECIAL, 0.5, 4)
    np.testing.assert_array_equal(weights_BM, [[0, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(positions_BM, [[8, 8, 8, 8], [1, 8, 8, 8]])


def test_every_maskable_position_is_equally_likely():
    draws = 4000
    ids_T = row(document(9, 7), document(5), length=32)
    positions_BM, weights_BM = choose_positions(jax.random.key(3), jnp.tile(ids_T, (draws, 1)), SPECIAL, 0.15, 5)
    words = np.flatnonzero(ids_T >= FIRST_WORD)
    counts = np.bincount(np.asarray(positions_BM)[np.asarray(weights_BM) == 1], minlength=32)
    assert counts[words].sum() == counts.sum() == 4 * draws  # round(0.15 · 26) of each row
    assert scipy.stats.chisquare(counts[words]).pvalue > 1e-3


# ---- input of the generator ----------------------------------------------------------------------


@pytest.mark.slow
def test_about_85_percent_of_the_chosen_positions_become_mask_and_all_are_predicted():
    ids_BT = jnp.asarray(np.random.default_rng(0).integers(FIRST_WORD, 150, (500, 64), dtype=np.int32))
    key, other = jax.random.split(jax.random.key(0))
    positions_BM, weights_BM = choose_positions(key, ids_BT, SPECIAL, 0.5, 32)
    masked = mask(other, ids_BT, positions_BM, weights_BM, MASK, 0.85)

    assert (weights_BM == 1).all()
    chosen_BT = np.zeros(ids_BT.shape, bool)
    np.put_along_axis(chosen_BT, np.asarray(positions_BM), True, axis=1)
    changed_BT = np.asarray(masked.input_ids_BT != ids_BT)
    assert not (changed_BT & ~chosen_BT).any(), "other positions keep their token"
    assert (np.asarray(masked.input_ids_BT)[changed_BT] == MASK).all()
    originals_BM = np.take_along_axis(np.asarray(ids_BT), np.asarray(positions_BM), axis=1)
    np.testing.assert_array_equal(masked.targets_BM, originals_BM)
    sigma = np.sqrt(0.85 * 0.15 / weights_BM.size)
    assert abs(changed_BT.sum() / weights_BM.size - 0.85) < 4 * sigma


@pytest.mark.parametrize(("share", "changed"), [(0.0, 0), (1.0, 4)])
def test_the_share_of_mask_tokens_can_be_zero_and_one(share, changed):
    ids_BT = jnp.asarray(row(document(14), length=16))[None, :]
    positions_BM = jnp.array([[1, 5, 9, 3, 16]])
    masked = mask(jax.random.key(0), ids_BT, positions_BM, jnp.array([[1.0, 1, 1, 1, 0]]), MASK, share)
    assert (masked.input_ids_BT != ids_BT).sum() == changed


@pytest.mark.slow
def test_scattering_at_an_unused_slot_changes_nothing():
    ids_BT = jnp.arange(6).reshape(2, 3)
    scattered = masking.scatter_tokens(ids_BT, jnp.array([[2, 3], [3, 3]]), jnp.array([[90, 91], [92, 93]]))
    np.testing.assert_array_equal(scattered, [[0, 1, 90], [3, 4, 5]])


def test_gathering_equals_the_reference(helpers):
    positions = jnp.asarray(helpers["gather/positions"])
    for kind in ("int", "float"):
        gathered = masking.gather_positions(jnp.asarray(helpers[f"scatter_{kind}/sequence"]), positions)
        np.testing.assert_array_equal(gathered, helpers[f"gather/out_{kind}"])


# ---- sampling ------------------------------------------------------------------------------------

REAL, PADDED = 200, 256  # entries of the vocabulary, the last of them padding


def _sample(logits_V: np.ndarray, draws: int, *, key: int = 0, forbidden: int | None = None, **options) -> np.ndarray:
    @quick.jit
    def sample(logits_V: jax.Array) -> jax.Array:  # an argument, because XLA would fold constants for minutes
        return masking.sample_tokens(
            jax.random.uniform(jax.random.key(key), (draws // 10, 10)),
            jnp.broadcast_to(logits_V, (draws // 10, 10, logits_V.size)),
            forbidden_BM=None if forbidden is None else jnp.full((draws // 10, 10), forbidden),
            **options,
        )

    return np.asarray(sample(logits_V)).ravel()


@pytest.fixture(scope="module")
def logits_V():
    logits = np.random.default_rng(2).normal(size=PADDED).astype(np.float32) * 1.5
    logits[REAL:] = -1e9
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("forbidden", [None, 105])
def test_samples_follow_the_tempered_softmax_without_the_forbidden_token(logits_V, temperature, forbidden):
    draws = 20_000
    samples = _sample(logits_V, draws, temperature=temperature, forbidden=forbidden)
    probability_V = scipy.special.softmax(logits_V[:REAL].astype(np.float64) / temperature)
    if forbidden is not None:
        assert probability_V[forbidden] == probability_V.max()
        probability_V[forbidden] = 0.0
        probability_V /= probability_V.sum()
    counts_V = np.bincount(samples, minlength=REAL)
    assert counts_V.size == REAL, "padded entries are never sampled"
    assert (counts_V[probability_V == 0] == 0).all()
    common = probability_V * draws >= 5  # the rest is one class: a chi-square test needs five of each
    observed = np.append(counts_V[common], counts_V[~common].sum())
    expected = np.append(probability_V[common], probability_V[~common].sum()) * draws
    assert scipy.stats.chisquare(observed + 1e-9, expected + 1e-9).pvalue > 1e-3


def test_samples_of_a_flat_distribution_cover_a_real_vocabulary_evenly():
    logits_V = np.zeros(31_232, np.float32)
    logits_V[31_090:] = -1e9
    samples = _sample(logits_V, 400)
    assert scipy.stats.kstest(samples, scipy.stats.randint(0, 31_090).cdf).pvalue > 1e-2
    assert len(set(samples % 128)) > 100, "every offset in a block occurs"


@pytest.mark.slow
@pytest.mark.parametrize(
    "uniform", [0.0, 1.0]
)  # 1.0 is never generated; it represents sums that rounding makes too small
@pytest.mark.parametrize("forbidden", [0, 199])
def test_the_ends_of_the_unit_interval_sample_a_possible_token(monkeypatch, logits_V, uniform, forbidden):
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape: jnp.full(shape, uniform, jnp.float32))
    samples = _sample(logits_V, 10, forbidden=forbidden)
    assert (samples < REAL).all()
    assert (samples != forbidden).all()


def test_a_nearly_certain_token_is_not_sampled_when_forbidden():
    logits_V = np.zeros(PADDED, np.float32)
    logits_V[REAL:] = -1e9
    logits_V[7] = 200.0
    assert (_sample(logits_V, 100) == 7).all()
    samples = _sample(logits_V, 100, forbidden=7)
    assert (samples != 7).all()
    assert len(set(samples)) > 50


# ---- segments ------------------------------------------------------------------------------------


def test_segments_positions_and_token_types_of_packed_rows():
    ids_BT = jnp.array(
        [
            [CLS, 9, 9, SEP, 9, SEP, CLS, 9, SEP, CLS, 9, SEP, 9, SEP, PAD, PAD],
            [CLS, 9, SEP, CLS, SEP, CLS, 9, 9, 9, SEP, 9, 9, 9, 9, 9, SEP],
            [CLS, 9, MASK, UNK, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9],
            [PAD] * 16,
        ]
    )
    structure = quick.jit(masking.packed_segments, static_argnums=1)(ids_BT, SPECIAL)
    np.testing.assert_array_equal(
        structure.segments_BT,
        [
            [1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3, 0, 0],
            [1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
            [1] * 16,
            [0] * 16,
        ],
    )
    np.testing.assert_array_equal(
        structure.positions_BT,
        [
            [0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 3, 4, 0, 0],
            [0, 1, 2, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
            list(range(16)),
            [0] * 16,
        ],
    )
    np.testing.assert_array_equal(
        structure.token_types_BT,
        [
            [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
            [0] * 16,
            [0] * 16,
        ],
    )
