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
from electramed_jax.finetune.training import crf
from electramed_jax.hf.format.mapping import SPAN
from electramed_jax.model.ops.numerics import MASK_VALUE

Batch = Mapping[str, jax.Array]  # {"input_ids": int32[R, T], "labels": see `batches.Batch`}


def loss_weights(labels: jax.Array, head: Head) -> jax.Array:
    """Returns float32[R, T]: the weight of each token's loss, 0 without a label. The loss is their weighted mean.

    One loss per labelled token of a "token" head, else one per example. Its weight is 1, or that of its class.
    """
    if head.kind == SPAN:
        return labels[..., 0]
    labelled = (labels if labels.ndim == 2 else labels[..., 0]) != IGNORE
    if not head.class_weights:
        return labelled.astype(jnp.float32)
    return jnp.where(labelled, jnp.array(head.class_weights, jnp.float32)[jnp.where(labelled, labels, 0)], 0.0)


def task_loss(
    logits_RTK: jax.Array,
    batch: Batch,
    segments_RT: jax.Array,
    head: Head,
    transitions: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns (weighted sum of the losses, sum of `loss_weights`).

    Args:
      logits_RTK: float32[R, T, K].
      segments_RT: int32[R, T], number of each token's example in its row; 0 at padding.
      transitions: those of a head with a CRF. Its loss is divided by the number of labelled tokens, too.
    """
    labels = batch["labels"]
    weights = loss_weights(labels, head)
    if head.kind == SPAN:
        return _span_loss(logits_RTK, labels, segments_RT), jnp.sum(weights)
    if transitions is not None:
        return crf.negative_log_likelihood(logits_RTK, labels, segments_RT, transitions), jnp.sum(weights)
    labelled = weights > 0
    if head.loss in (SIGMOID, SQUARED):
        targets = jnp.where(labelled[..., None], labels, 0.0)
        if head.loss == SIGMOID:
            each = optax.sigmoid_binary_cross_entropy(logits_RTK, targets)
        else:
            each = jnp.square(logits_RTK - targets)
        losses = jnp.mean(each, axis=-1)
    else:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits_RTK, jnp.where(labelled, labels, 0))
    return jnp.sum(jnp.where(labelled, weights * losses, 0.0)), jnp.sum(weights)


def divergence(logits_RTK: jax.Array, others_RTK: jax.Array, weights_RT: jax.Array, head: Head) -> jax.Array:
    """Returns the weighted sum of R-Drop's divergence between two predictions: (KL(P, Q) + KL(Q, P)) / 2.

    A sigmoid has one distribution per label; their divergences are averaged, as their losses are. Source: Wu et al.
    2021, equation 2.
    """
    if head.loss == SIGMOID:
        p, q = jax.nn.sigmoid(logits_RTK), jax.nn.sigmoid(others_RTK)
        each = jnp.mean((p - q) * (logits_RTK - others_RTK), axis=-1) / 2
    else:
        log_p, log_q = jax.nn.log_softmax(logits_RTK), jax.nn.log_softmax(others_RTK)
        each = jnp.sum((jnp.exp(log_p) - jnp.exp(log_q)) * (log_p - log_q), axis=-1) / 2
    return jnp.sum(weights_RT * each)


def _span_loss(logits_RT2: jax.Array, labels_RT2: jax.Array, segments_RT: jax.Array) -> jax.Array:
    """Returns the sum of the span losses.

    The loss of an example is the mean of two cross-entropies over its tokens: of the start and of the end.
    """
    same_RTS1 = (segments_RT[:, :, None] == segments_RT[:, None, :])[..., None]
    total_RT2 = jax.nn.logsumexp(jnp.where(same_RTS1, logits_RT2[:, None], MASK_VALUE), axis=2)
    return jnp.sum(labels_RT2 * (total_RT2 - logits_RT2)) / 2
