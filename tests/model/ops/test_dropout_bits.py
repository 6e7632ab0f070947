"""Dropout bits have the right rate, are uncorrelated between elements and differ between keys."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
import quick

from electramed_jax.model.ops import dropout_bits

SHAPE, RATE = (16, 128, 256), 0.1
COUNT = int(np.prod(SHAPE))
DEVIATION = np.sqrt(RATE * (1 - RATE))


def keep(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return dropout_bits.dropout_mask(dropout_bits.dropout_seeds(key, shape[:1]), shape, RATE)


@functools.cache
def normalized_mask(seed: int) -> np.ndarray:
    """Returns a dropout mask, normalized to zero mean and unit variance."""
    mask = quick.jit(keep, static_argnums=1)(jax.random.key(seed), SHAPE)
    return (np.asarray(mask, np.float64) - (1 - RATE)) / DEVIATION


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2), (0, 2), (0, 1)], ids=["all", "a row", "a token", "a feature"])
def test_every_slice_has_the_expected_rate(axes):
    share = normalized_mask(0).mean(axis=axes) * np.sqrt(np.prod([SHAPE[axis] for axis in axes]))
    assert np.abs(share).max() < 4.5
    assert share.size == 1 or 0.7 < share.std() < 1.3, "the rate varies like that of independent draws"


@pytest.mark.parametrize("shift", [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 2), (0, 0, 128), (0, 1, -1), (0, 64, 0)])
def test_elements_are_uncorrelated(shift):
    correlation = (normalized_mask(0) * np.roll(normalized_mask(0), shift, axis=(0, 1, 2))).mean()
    assert abs(correlation) * np.sqrt(COUNT) < 4.5


@functools.cache
def normalized_paired_mask() -> np.ndarray:
    draw = quick.jit(dropout_bits.paired_dropout_mask, static_argnums=(1, 2))
    mask = draw(dropout_bits.dropout_seeds(jax.random.key(0), SHAPE[:1]), SHAPE, RATE)
    return (np.asarray(mask, np.float64) - (1 - RATE)) / DEVIATION


def test_elements_that_share_a_hash_are_as_independent_as_all_others():
    mask, half = normalized_paired_mask(), SHAPE[-1] // 2
    assert abs((mask[..., :half] * mask[..., half:]).mean()) * np.sqrt(COUNT / 2) < 4.5
    for part in (mask[..., :half], mask[..., half:], mask):
        assert abs(part.mean()) * np.sqrt(part.size) < 4.5
    for shift in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, half)):
        assert abs((mask * np.roll(mask, shift, axis=(0, 1, 2))).mean()) * np.sqrt(COUNT) < 4.5


@pytest.mark.parametrize("length", [5, 6])
def test_an_odd_number_of_elements_is_paired_too(length):
    seeds = dropout_bits.dropout_seeds(jax.random.key(0), (2, 3))
    whole = dropout_bits.paired_dropout_mask(seeds, (2, 3, 4, length), 0.5)
    assert whole.shape == (2, 3, 4, length) and 0.3 < whole.mean() < 0.7


def test_masks_of_different_keys_are_uncorrelated():
    assert abs((normalized_mask(0) * normalized_mask(1)).mean()) * np.sqrt(COUNT) < 4.5


def test_four_elements_of_a_rectangle_are_independent():
    """This would fail for a hash that mixes the sum of a row and a column index too little."""
    corners = normalized_mask(0)
    for axis, by in ((1, 8), (2, 16)):
        corners = corners * np.roll(corners, by, axis=axis)
    assert abs(corners.mean()) * np.sqrt(COUNT) < 4.5


def test_bits_flip_with_every_bit_of_the_counter_and_of_the_key():
    counter = np.arange(4096, dtype=np.int32)
    before = np.asarray(dropout_bits.hash_bits(counter, np.int32(12345), np.int32(678)))
    changed = [(counter ^ 2**bit, 12345, 678) for bit in range(20)]
    changed += [(counter, 12345 ^ 2**bit, 678) for bit in range(31)]
    changed += [(counter, 12345, 678 ^ 2**bit) for bit in range(31)]
    for arguments in changed:
        after = np.asarray(dropout_bits.hash_bits(*(np.asarray(argument, np.int32) for argument in arguments)))
        flipped = np.unpackbits((before ^ after).view(np.uint8)).mean()
        assert 0.4 < flipped < 0.6, arguments[1:]


@pytest.mark.slow
def test_the_mesh_does_not_affect_the_mask():
    """Each device computes the bits of its shard; together they equal the mask of the whole array."""
    shape = (8, 16, 32)
    mesh = jax.make_mesh((4, 2), ("rows", "features"), (jax.sharding.AxisType.Auto,) * 2)
    split = jax.sharding.NamedSharding(mesh, jax.P("rows", None, "features"))
    mask = quick.jit(keep, static_argnums=1, out_shardings=split)(jax.random.key(0), shape)
    assert mask.addressable_shards[0].data.shape == (2, 16, 16)
    np.testing.assert_array_equal(mask, keep(jax.random.key(0), shape))


@pytest.mark.slow
def test_additional_rows_do_not_change_the_mask_of_earlier_rows():
    few, more = (keep(jax.random.key(0), (rows, 16, 32)) for rows in (3, 8))
    np.testing.assert_array_equal(few, more[:3])
