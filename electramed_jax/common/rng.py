"""Random keys derived from the name of a stream and the step. A new stream does not change the others."""

from __future__ import annotations

import zlib

import jax


def key_for(root: jax.Array, name: str, step: jax.Array | int) -> jax.Array:
    """Returns the key of stream `name` at `step`: `root` folded with the CRC-32 of the name, then with the step."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)
