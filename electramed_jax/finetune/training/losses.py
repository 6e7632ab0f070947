"""The loss of a batch: a mean over what is asked about in it, wherever it stands.

google-research/electra sums over the batch instead (and clips the gradient to norm 1, which hides most of it): its
learning rates are not ours times the batch.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SPAN, SQUARED, Head
from electramed_jax.model.ops.numerics import MASK_VALUE

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[R, T], "labels": see `batches.Batch`}


def of(logits_RTK: jax.Array, batch: Batch, segments_RT: jax.Array, head: Head) -> tuple[jax.Array, jax.Array]:
    """(sum of the losses, number of them): a tagger's of its tokens, else of the examples.

    Args:
      logits_RTK: float32.
      segments_RT: number of each token's example in its row; 0 at padding.
    """
    labels = batch["labels"]
    if head.kind == SPAN:
        return _spans(logits_RTK, labels, segments_RT)
    if head.loss in (SIGMOID, SQUARED):
        asked = labels[..., 0] != IGNORE
        wanted = jnp.where(asked[..., None], labels, 0.0)
        each = (
            optax.sigmoid_binary_cross_entropy(logits_RTK, wanted)
            if head.loss == SIGMOID
            else (jnp.square(logits_RTK - wanted))
        )
        losses = jnp.mean(each, axis=-1)
    else:
        asked = labels != IGNORE
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_RTK, jnp.where(asked, labels, 0))
    return jnp.sum(jnp.where(asked, losses, 0.0)), jnp.sum(asked, dtype=jnp.float32)


def _spans(logits_RT2: jax.Array, labels_RT2: jax.Array, segments_RT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over an example's tokens, of where the answer begins and of where it ends; an example's loss is their
    mean."""
    same_RTS1 = (segments_RT[:, :, None] == segments_RT[:, None, :])[..., None]
    total_RT2 = jax.nn.logsumexp(jnp.where(same_RTS1, logits_RT2[:, None], MASK_VALUE), axis=2)
    losses = jnp.sum(labels_RT2 * (total_RT2 - logits_RT2)) / 2
    return losses, jnp.sum(labels_RT2[..., 0])
