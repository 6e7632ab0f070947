"""Segments, masked positions and corrupted rows, computed from rows of token ids on the device.

There are no parameters here. Differences from google-research/electra pretrain/pretrain_helpers.py: positions are drawn
*without* replacement (there with: 7 % of them twice, and two samples for one position are averaged into an arbitrary
token id), and a row with nothing to mask has weight 0 (there NaN).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.model.ops import batch_axes

COLUMNS = 1024  # `sample_tokens` reshapes the vocabulary to rows of this length and samples a column first


class PackedSegments(NamedTuple):
    """Segment, position and token type of each token, computed from the original ids before any corruption."""

    segments_BT: jax.Array  # number of the token's document, from 1; 0 at padding
    positions_BT: jax.Array  # distance from the document's [CLS]; 0 at padding
    token_types_BT: jax.Array  # 1 after the document's first [SEP]; 0 at padding


class MaskedTokens(NamedTuple):
    """The positions that the generator predicts. Unused slots have weight 0 and position T (outside the row)."""

    positions_BM: jax.Array
    weights_BM: jax.Array  # 1.0 or 0.0
    targets_BM: jax.Array  # original ids; arbitrary where the weight is 0
    input_ids_BT: jax.Array  # with [MASK] tokens


@jax.named_scope("masking")
def packed_segments(ids_BT: jax.Array, special: SpecialIds) -> PackedSegments:
    """Computes the segments of rows `[CLS] A [SEP] (B [SEP])` ... `[PAD]`."""
    B, T = ids_BT.shape
    token = (ids_BT != special.pad).astype(jnp.int32)
    starts = (ids_BT == special.cls).astype(jnp.int32)
    segments = jnp.cumsum(starts, axis=1) * token
    index = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
    start_of_document = jax.lax.cummax(jnp.where(starts == 1, index, 0), axis=1)
    separators_before = jnp.cumsum(ids_BT == special.sep, axis=1) - (ids_BT == special.sep)
    at_start = jax.lax.cummax(jnp.where(starts == 1, separators_before, 0), axis=1)
    token_types = ((separators_before - at_start) > 0).astype(jnp.int32)
    return PackedSegments(segments, (index - start_of_document) * token, token_types * token)


def maskable(ids_BT: jax.Array, special: SpecialIds) -> jax.Array:
    """Returns bool[B, T], True at tokens that may be predicted: all but [PAD], [CLS], [SEP] and [MASK]."""
    excluded = jnp.array([special.pad, special.cls, special.sep, special.mask], jnp.int32)
    return (ids_BT[..., None] != excluded[None, None, :]).all(axis=-1)


def num_predictions(num_tokens_B: jax.Array, mask_probability: float, max_predictions: int) -> jax.Array:
    """Returns max(1, min(M, round(p·n))), where n counts every non-pad token. Halves round to even, as in TensorFlow.

    Source: google-research/electra pretrain_helpers.py:172-175.
    """
    wanted = jnp.round(num_tokens_B.astype(jnp.float32) * mask_probability).astype(jnp.int32)
    return jnp.maximum(1, jnp.minimum(max_predictions, wanted))


@jax.named_scope("masking")
def choose_positions(
    key: jax.Array,
    ids_BT: jax.Array,
    special: SpecialIds,
    mask_probability: float,
    max_predictions: int,
) -> tuple[jax.Array, jax.Array]:
    """Draws the positions to predict, uniformly and without replacement.

    Returns:
      positions int32[B, M] and weights float32[B, M]; unused slots have position T and weight 0.
    """
    B, T = ids_BT.shape
    allowed_BT = maskable(ids_BT, special)
    scores_BT = jnp.where(allowed_BT, uniform_per_row(key, (B, T)), -1.0)
    best_BM, positions_BM = jax.lax.top_k(scores_BT, min(max_predictions, T))
    num_tokens_B = jnp.sum(ids_BT != special.pad, axis=1)
    wanted_B = num_predictions(num_tokens_B, mask_probability, max_predictions)
    rank_M = jnp.arange(positions_BM.shape[1])
    used_BM = (rank_M[None, :] < wanted_B[:, None]) & (best_BM >= 0.0)
    return jnp.where(used_BM, positions_BM, T).astype(jnp.int32), used_BM.astype(jnp.float32)


def uniform_per_row(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uniform numbers in [0, 1), float32[shape]. Each row of the batch has its own key."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape[1:]))(batch_axes.row_keys(key, shape[0]))


@jax.named_scope("masking")
def mask_tokens(
    key: jax.Array,
    ids_BT: jax.Array,
    positions_BM: jax.Array,
    weights_BM: jax.Array,
    mask_id: int,
    mask_token_share: float,
) -> MaskedTokens:
    """Replaces a share of the chosen positions by `[MASK]`. The others keep their token and are predicted, too."""
    uniform_BM = uniform_per_row(key, positions_BM.shape)
    targets_BM = gather_positions(ids_BT, positions_BM)
    values_BM = jnp.where(uniform_BM < mask_token_share, mask_id, targets_BM)
    return MaskedTokens(positions_BM, weights_BM, targets_BM, scatter_tokens(ids_BT, positions_BM, values_BM))


@jax.named_scope("sampling")
def sample_tokens(
    uniform_BM: jax.Array,
    logits_BMV: jax.Array,
    *,
    temperature: float = 1.0,
    forbidden_BM: jax.Array | None = None,
) -> jax.Array:
    """Samples one token per position, exactly from softmax(logits / temperature), in float32.

    The logits are viewed as rows of `COLUMNS`. One uniform number per position is looked up in the cumulative
    distribution of the column sums, then in that of the chosen column's entries. This is the distribution of an argmax
    over V Gumbel-perturbed logits, for 1/V of the random bits. The result carries no gradient.

    Args:
      uniform_BM: numbers in [0, 1).
      logits_BMV: float32; MASK_VALUE at padded entries.
      forbidden_BM: ids that must not be sampled (ELECTRA's disallow_correct), or None.

    Returns:
      int32[B, M].
    """
    V = logits_BMV.shape[-1]
    logits_BMV = jax.lax.stop_gradient(logits_BMV.astype(jnp.float32)) / temperature
    if forbidden_BM is not None:
        ids_V = jnp.arange(V)[None, None, :]
        logits_BMV = jnp.where(ids_V == forbidden_BM[..., None], -jnp.inf, logits_BMV)
    weights_BMV = jnp.exp(logits_BMV - jnp.max(logits_BMV, axis=-1, keepdims=True))
    # Slices, not a reshape: on a TPU a reshape would copy the logits and sum across lanes.
    rows_BMC = [weights_BMV[..., start : start + COLUMNS] for start in range(0, V, COLUMNS)]
    rows_BMC[-1] = jnp.pad(rows_BMC[-1], ((0, 0), (0, 0), (0, -V % COLUMNS)))
    columns_BMC = sum(rows_BMC[1:], start=rows_BMC[0])
    target_BM = uniform_BM * jnp.sum(columns_BMC, axis=-1)
    column_BM, before_BM = _first_above(columns_BMC, target_BM)
    chosen_BMC = column_BM[..., None] == jnp.arange(COLUMNS)[None, None, :]
    weights_BMR = jnp.stack([jnp.sum(jnp.where(chosen_BMC, row, 0.0), axis=-1) for row in rows_BMC], axis=-1)
    row_BM, _ = _first_above(weights_BMR, target_BM - before_BM)
    return (row_BM * COLUMNS + column_BM).astype(jnp.int32)


def _first_above(weights_BMK: jax.Array, target_BM: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the first entry with a cumulative weight that exceeds the target, and the cumulative weight before it.

    If rounding leaves the target at or above the whole sum, the entry of the largest weight is chosen, never one of
    weight 0.
    """
    cumulative_BMK = jnp.cumsum(weights_BMK, axis=-1)
    above_BMK = (cumulative_BMK > target_BM[..., None]) & (weights_BMK > 0)
    index_BM = jnp.where(above_BMK.any(axis=-1), jnp.argmax(above_BMK, axis=-1), jnp.argmax(weights_BMK, axis=-1))
    before_BM = jnp.take_along_axis(cumulative_BMK - weights_BMK, index_BM[..., None], axis=-1)[..., 0]
    return index_BM, before_BM


@jax.named_scope("masking")
def gather_positions(x_BT: jax.Array, positions_BM: jax.Array) -> jax.Array:
    """Returns x at the given positions of each row, for x of [B, T] or [B, T, D].

    Positions outside the row read the last token.
    """
    index = positions_BM if x_BT.ndim == 2 else positions_BM[..., None]
    return jnp.take_along_axis(x_BT, index, axis=1, mode="clip")


@jax.named_scope("masking")
def scatter_tokens(ids_BT: jax.Array, positions_BM: jax.Array, values_BM: jax.Array) -> jax.Array:
    """Writes values at the given positions of each row. Positions outside the row (unused slots) are dropped."""
    rows_B1 = jnp.arange(ids_BT.shape[0])[:, None]
    return ids_BT.at[rows_B1, positions_BM].set(values_BM.astype(ids_BT.dtype), mode="drop")
