"""The loss of a batch: the mean over its labelled tokens or examples.

google-research/electra sums over the batch instead, and clips the gradient to norm 1, which hides most of the
difference. Its learning rates are not this package's times the batch size.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SQUARED, Head
from electramed_jax.hf.format.mapping import SPAN
from electramed_jax.model.ops.numerics import MASK_VALUE

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[R, T], "labels": see `batches.Batch`}


def task_loss(logits_RTK: jax.Array, batch: Batch, segments_RT: jax.Array, head: Head) -> tuple[jax.Array, jax.Array]:
    """Returns (sum of the losses, number of losses): one per labelled token of a "token" head, else one per example.

    Args:
      logits_RTK: float32[R, T, K].
      segments_RT: int32[R, T], number of each token's example in its row; 0 at padding.
    """
    labels = batch["labels"]
    if head.kind == SPAN:
        return _span_loss(logits_RTK, labels, segments_RT)
    if head.loss in (SIGMOID, SQUARED):
        labelled = labels[..., 0] != IGNORE
        targets = jnp.where(labelled[..., None], labels, 0.0)
        if head.loss == SIGMOID:
            each = optax.sigmoid_binary_cross_entropy(logits_RTK, targets)
        else:
            each = jnp.square(logits_RTK - targets)
        losses = jnp.mean(each, axis=-1)
    else:
        labelled = labels != IGNORE
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_RTK, jnp.where(labelled, labels, 0))
    return jnp.sum(jnp.where(labelled, losses, 0.0)), jnp.sum(labelled, dtype=jnp.float32)


def _span_loss(logits_RT2: jax.Array, labels_RT2: jax.Array, segments_RT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sum and number of span losses.

    The loss of an example is the mean of two cross-entropies over its tokens: of the start and of the end.
    """
    same_RTS1 = (segments_RT[:, :, None] == segments_RT[:, None, :])[..., None]
    total_RT2 = jax.nn.logsumexp(jnp.where(same_RTS1, logits_RT2[:, None], MASK_VALUE), axis=2)
    losses = jnp.sum(labels_RT2 * (total_RT2 - logits_RT2)) / 2
    return losses, jnp.sum(labels_RT2[..., 0])
