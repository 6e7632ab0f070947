"""Tests of keys derived from names and steps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.common.rng import key_for


def _data(key: jax.Array) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_streams_and_steps_and_seeds_have_keys_of_their_own():
    keys = {
        _data(key_for(jax.random.key(seed), name, step))
        for seed in (0, 1)
        for name in ("train/mask", "train/sampling", "validation/mask")
        for step in (0, 1, 1_000_000)
    }
    assert len(keys) == 2 * 3 * 3


def test_a_key_is_the_same_in_every_process_and_version():
    """A resumed run must sample the same values. 0xEF56C507 is the CRC-32 of the name."""
    root = jax.random.key(7)
    expected = jax.random.fold_in(jax.random.fold_in(root, 0xEF56C507), 3)
    assert _data(key_for(root, "train/mask", 3)) == _data(expected)


def test_a_traced_step_gives_the_key_of_the_plain_one():
    root = jax.random.key(0)
    traced = jax.jit(lambda step: key_for(root, "train/mask", step))(jnp.int32(12))
    assert _data(traced) == _data(key_for(root, "train/mask", 12))
