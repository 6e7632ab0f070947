"""Randomness is named, never split by position: adding a stream leaves the others as they were."""

from __future__ import annotations

import zlib

import jax


def key_for(root: jax.Array, name: str, step: jax.Array | int) -> jax.Array:
    """The key of stream `name` at `step`, under the run's root key."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)
