"""Mixtures: each member has its own epochs, at the rate of its weight, independent of earlier calls."""

from __future__ import annotations

import collections
from fractions import Fraction

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset import mixture
from electramed_jax.data.dataset.mixture import MixtureSampler, parse_weights
from electramed_jax.data.dataset.sampler import EpochSampler

ROUND = mixture.ROUND_POSITIONS


def rows_of_steps(order: MixtureSampler, steps: int) -> np.ndarray:
    return np.concatenate([order.rows(step) for step in range(steps)])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [64, 250, 100_000])
def test_the_rows_of_a_step_are_those_of_its_positions(batch_size):
    order = MixtureSampler((5000, 300, 7), parse_weights("5, 2, 1"), batch_size, seed=3)
    long, step = MixtureSampler((5000, 300, 7), order.weights, 1, seed=3), 2 * ROUND // batch_size
    assert len(order.rows(step)) == batch_size
    positions = [step * batch_size, (step + 1) * batch_size - 1]
    assert order.rows(step)[[0, -1]].tolist() == [int(long.rows(position)[0]) for position in positions]
    np.testing.assert_array_equal(
        order.rows(step), MixtureSampler((5000, 300, 7), order.weights, batch_size, 3).rows(step)
    )


@pytest.mark.slow
def test_each_member_has_its_own_order_with_every_row_once_per_epoch():
    order = MixtureSampler((5000, 300, 7), parse_weights("5,2,1"), 1000, seed=3)
    rows = rows_of_steps(order, 200)
    for member, first in enumerate((0, 5000, 5300)):
        own = rows[(rows >= first) & (rows < first + order.num_rows[member])] - first
        alone = EpochSampler(order.num_rows[member], len(own), 3, member=member)
        np.testing.assert_array_equal(own, alone.rows(0))
        whole = own[: len(own) // order.num_rows[member] * order.num_rows[member]].reshape(-1, order.num_rows[member])
        assert len(whole) and (np.sort(whole, axis=1) == np.arange(order.num_rows[member])).all()


def test_shares_are_the_weights_exact_in_every_round_and_close_in_every_batch():
    order = MixtureSampler((5000, 300), parse_weights("0.75,0.25"), 1024, seed=0)
    rows = rows_of_steps(order, 4 * ROUND // 1024)
    small = (rows >= 5000).reshape(4, ROUND)
    assert (small.sum(axis=1) == ROUND // 4).all()
    batches = small.reshape(-1, 1024).sum(axis=1)
    assert 256 - 75 < batches.min() < 256 < batches.max() < 256 + 75  # five standard deviations
    assert not (small[0] == small[1]).all(), "each round is drawn again"


def test_without_weights_members_are_mixed_in_proportion_to_their_rows():
    order = MixtureSampler((90_000, 30_000), (), 1000, seed=0)
    assert order.quotas == (ROUND * 3 // 4, ROUND // 4)
    counts = collections.Counter(rows_of_steps(order, 480).tolist())
    assert set(counts) == set(range(120_000)) and set(counts.values()) <= {3, 4, 5}


def test_a_single_member_has_the_order_of_an_epoch_sampler():
    alone, plain = MixtureSampler((777,), (), 100, seed=5), EpochSampler(777, 100, 5)
    assert mixture.make_sampler((777,), (), 100, 5) == plain
    for step in (0, 3, 7, 700, 1000):
        np.testing.assert_array_equal(alone.rows(step), plain.rows(step))


def test_members_of_equal_length_have_different_orders():
    rows = rows_of_steps(MixtureSampler((500, 500), (), 1000, seed=5), 1)
    assert not np.array_equal(rows[rows < 500], rows[rows >= 500] - 500)


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ([1], [ROUND]),
        ([1, 1, 1], [21846, 21845, 21845]),  # the largest remainder, and the first of equals
        ([Fraction("0.1"), Fraction("0.2"), Fraction("0.7")], [6554, 13107, 45875]),
        ([10**9, 1, 1], [ROUND - 2, 1, 1]),  # each gets at least one
        ([3, 10**9, 10**9], [1, ROUND // 2 - 1, ROUND // 2]),
    ],
)
def test_quotas_are_the_weights_in_proportion(weights, wanted):
    assert list(mixture.compute_quotas(weights)) == wanted


@pytest.mark.parametrize("text", ["3,-1", "0,1", "3,,1", "three,1", "1/0", "nan,1", "inf,1"])
def test_text_that_is_not_weights_is_refused(text):
    with pytest.raises(UserError, match="config.data.weights=.*wanted numbers above 0"):
        parse_weights(text)


def test_a_wrong_number_of_weights_is_refused():
    with pytest.raises(UserError, match="data.weights names 3 for 2 datasets; give one for each folder"):
        MixtureSampler((10, 20), parse_weights("1,2,3"), 8, 0)


def test_the_order_is_the_one_that_runs_in_progress_rely_on():
    """See test_sampler: other numbers here mean that runs in progress would resume in another order."""
    order = MixtureSampler((1000, 100), parse_weights("4,1"), 12, seed=42)
    assert order.rows(0).tolist() == [944, 1003, 580, 608, 141, 467, 1006, 646, 977, 688, 168, 420]
    assert order.rows(100_000).tolist() == [1085, 722, 1089, 604, 1040, 1056, 882, 350, 624, 369, 512, 361]
