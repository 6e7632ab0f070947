"""Vectors of the parts of a text around the placeholders of a relation, for the head to read in addition to [CLS]."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from electramed_jax.config.finetune import MENTIONS
from electramed_jax.finetune.task.task import Head
from electramed_jax.model.masking import PackedSegments


def part_masks(ids_BT: jax.Array, structure: PackedSegments, head: Head) -> list[jax.Array]:
    """Returns bool[B, T] for each part of the examples: True at its tokens.

    "mentions": the first placeholder; the last one. "pieces": the tokens before the first placeholder, those between
    it and the last one, and those after. [CLS], the last [SEP] and [PAD] are in no part. Without a placeholder all
    tokens are before.
    """
    is_marker = jnp.isin(ids_BT, jnp.array(head.markers, jnp.int32))
    count = jnp.cumsum(is_marker, axis=1)
    segments = structure.segments_BT
    is_start = (segments > 0) & (structure.positions_BT == 0)
    is_last = segments != jnp.pad(segments[:, 1:], ((0, 0), (0, 1)))
    # of the example alone, this token included
    count -= jax.lax.cummax(jnp.where(is_start, count - is_marker, 0), axis=1)
    same = _same_example(structure)
    total = jnp.max(jnp.where(same, count[:, None, :], 0), axis=2)
    if head.pooling == MENTIONS:
        return [is_marker & (count == 1), is_marker & (count == total)]
    is_word = (segments > 0) & ~is_marker & ~is_start & ~is_last
    between = (count > 0) & (count < total)
    return [is_word & (count == 0), is_word & between, is_word & (count > 0) & (count == total)]


def pool(h_BTD: jax.Array, ids_BT: jax.Array, structure: PackedSegments, head: Head) -> jax.Array:
    """Returns [B, T, n D]: the vector of each token, followed by the means over the parts of its example.

    The mean over an empty part is 0. The result is read at [CLS].
    """
    same = _same_example(structure)
    vectors = [h_BTD]
    for mask in part_masks(ids_BT, structure, head):
        chosen = (same & mask[:, None, :]).astype(jnp.float32)
        weights = chosen / jnp.maximum(chosen.sum(axis=2, keepdims=True), 1.0)
        vectors.append(jnp.einsum("bts,bsd->btd", weights.astype(h_BTD.dtype), h_BTD))
    return jnp.concatenate(vectors, axis=-1)


def _same_example(structure: PackedSegments) -> jax.Array:
    """Returns bool[B, T, S]: whether both tokens are of one example."""
    segments = structure.segments_BT
    return (segments[:, :, None] == segments[:, None, :]) & (segments[:, :, None] > 0)
