"""The loss of a linear-chain conditional random field over the labelled tokens of packed examples.

The score of a sequence is the sum of the logits of its labels and of the transition scores between neighbours. Tokens
without a label (continued word pieces) are passed over. Source: Lafferty et al. 2001; Lample et al. 2016.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from electramed_jax.finetune.task.task import IGNORE


def negative_log_likelihood(
    logits_RTK: jax.Array, labels_RT: jax.Array, segments_RT: jax.Array, transitions: jax.Array
) -> jax.Array:
    """Returns the sum over all examples of -log P(labels), a float32 scalar.

    Args:
      labels_RT: int32[R, T], IGNORE for a token without a label.
      segments_RT: int32[R, T], number of each token's example in its row; 0 at padding.
      transitions: float32[K + 1, K], see `viterbi.best_path`.
    """
    rows, _, K = logits_RTK.shape
    first, between = transitions[K], transitions[:K]

    def step(
        carry: tuple[jax.Array, jax.Array, jax.Array], token: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        """Carries log alpha [R, K], the label before [R], and the example of it [R]; returns minus the new scores."""
        alpha, label_before, segment_before = carry
        logits, label, segment = token
        is_labelled = label != IGNORE
        goes_on = segment == segment_before
        target = jnp.where(is_labelled, label, 0)
        reached = jax.nn.logsumexp(alpha[:, :, None] + between[None], axis=1)
        new = logits + jnp.where(goes_on[:, None], reached, first[None])
        # log Z grows by the difference, because the sum over the last label is log Z of the sequence so far
        before = jnp.where(goes_on, jax.nn.logsumexp(alpha, axis=1), 0.0)
        grown = jax.nn.logsumexp(new, axis=1) - before
        score = jnp.take_along_axis(logits, target[:, None], axis=1)[:, 0]
        score += jnp.where(goes_on, between[label_before, target], first[target])
        keep = is_labelled[:, None]
        carry = (
            jnp.where(keep, new, alpha),
            jnp.where(is_labelled, target, label_before),
            jnp.where(is_labelled, segment, segment_before),
        )
        return carry, jnp.sum(jnp.where(is_labelled, grown - score, 0.0))

    start = (jnp.zeros((rows, K), jnp.float32), jnp.zeros(rows, jnp.int32), jnp.zeros(rows, jnp.int32))
    tokens = (jnp.moveaxis(logits_RTK, 1, 0), labels_RT.T, segments_RT.T)
    return jnp.sum(jax.lax.scan(step, start, tokens)[1])
