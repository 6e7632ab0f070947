"""The ELECTRA loss, as sums and counts, and the metrics computed from them.

A step returns sums and counts over its batch; means are taken only for logging. The losses are normalized by *global*
counts, over all devices (google-research/electra: per core).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.config.pretrain import ObjectiveConfig
from electramed_jax.model import masking
from electramed_jax.model.electra import Electra

AUC_BINS = 2048  # histogram bins of the discriminator's logit over [-AUC_RANGE, AUC_RANGE]; each is 1/64 wide
AUC_RANGE = 16.0

Sums = dict[str, jax.Array]  # by name; names are stored in checkpoints, among the pending sums


class LossDenominators(NamedTuple):
    """Counts of the whole batch, float32[], that the two losses are divided by."""

    masked: jax.Array  # positions to predict
    tokens: jax.Array  # tokens except padding


def loss_denominators(masked: masking.MaskedTokens, structure: masking.PackedSegments) -> LossDenominators:
    """Returns the denominators of a batch, each at least 1, so that the loss of an empty batch is 0."""
    tokens = jnp.sum(structure.segments_BT > 0, dtype=jnp.float32)
    return LossDenominators(jnp.maximum(jnp.sum(masked.weights_BM), 1.0), jnp.maximum(tokens, 1.0))


def electra_loss(
    model: Electra,
    ids_BT: jax.Array,
    masked: masking.MaskedTokens,
    structure: masking.PackedSegments,
    config: ObjectiveConfig,
    *,
    sample: Callable[[jax.Array], jax.Array],
    denominators: LossDenominators | None = None,
    generator_key: jax.Array | None = None,
    discriminator_key: jax.Array | None = None,
    with_auc: bool = False,
) -> tuple[jax.Array, Sums]:
    """Returns the training loss and the sums that all metrics are computed from.

    Args:
      ids_BT: original token ids.
      masked: input and targets of the generator.
      sample: from generator logits [B, M, V] to token ids [B, M].
      denominators: of the whole batch that these rows are a part of, so that the losses of its parts add up to its
        loss. None if the rows are the whole batch.
      generator_key, discriminator_key: dropout keys; None for evaluation.
      with_auc: also return histograms of the discriminator's logits.

    Returns:
      loss: generator_weight · mean MLM loss + discriminator_weight · mean RTD loss (the latter not for kind "mlm").
      sums: input of `electra_metrics`.
    """
    denominators = loss_denominators(masked, structure) if denominators is None else denominators
    logits_BMV = model.generator_logits(masked, structure, generator_key)
    sampled_BM = jax.lax.stop_gradient(sample(logits_BMV))
    sums = generator_sums(logits_BMV, sampled_BM, masked)
    if config.kind == "uniform":
        sums["generator_correct_sum"] = jnp.float32(0)  # it has no best token
    loss = config.generator_weight * sums["generator_nll_sum"] / denominators.masked
    in_use_BT = structure.segments_BT > 0
    sums["token_count"] = jnp.sum(in_use_BT, dtype=jnp.float32)
    # All-padding rows fill up the last batch of an evaluation; they are not rows of the dataset.
    sums["slot_count"] = ids_BT.shape[1] * jnp.sum(jnp.any(in_use_BT, axis=1), dtype=jnp.float32)
    if config.kind != "mlm":
        corrupted_BT = masking.scatter_tokens(ids_BT, masked.positions_BM, sampled_BM)
        replaced_BT = corrupted_BT != ids_BT  # a sample equal to the original is labelled original
        discriminator_logits_BT = model.discriminator_logits(corrupted_BT, structure, discriminator_key)
        sums |= discriminator_sums(discriminator_logits_BT, replaced_BT, in_use_BT, with_auc=with_auc)
        loss += config.discriminator_weight * sums["discriminator_nll_sum"] / denominators.tokens
    return loss, jax.lax.stop_gradient(sums)


@jax.named_scope("generator_loss")
def generator_sums(logits_BMV: jax.Array, sampled_BM: jax.Array, masked: masking.MaskedTokens) -> Sums:
    """Returns sums of the generator over the masked positions: negative log likelihood, correct predictions."""
    nll_BM = negative_log_likelihood(logits_BMV, masked.targets_BM)
    weights_BM = masked.weights_BM
    # Equals an argmax over V, except for ties, and reuses the maximum that the normalizer needs.
    correct_BM = _target_logits(logits_BMV, masked.targets_BM) >= jnp.max(logits_BMV, axis=-1)
    return {
        "generator_nll_sum": jnp.sum(weights_BM * nll_BM),
        "generator_correct_sum": jnp.sum(weights_BM * correct_BM),
        "sampled_correct_sum": jnp.sum(weights_BM * (sampled_BM == masked.targets_BM)),
        "masked_count": jnp.sum(weights_BM),
    }


@jax.custom_vjp
def negative_log_likelihood(logits_BMV: jax.Array, targets_BM: jax.Array) -> jax.Array:
    """Returns -log softmax(logits) of the targets, float32[B, M]. The gradient takes one pass over the logits."""
    return _nll_forward(logits_BMV, targets_BM)[0]


def _nll_forward(logits_BMV: jax.Array, targets_BM: jax.Array) -> tuple[jax.Array, tuple]:
    log_normalizer_BM = jax.nn.logsumexp(logits_BMV, axis=-1)
    nll_BM = log_normalizer_BM - _target_logits(logits_BMV, targets_BM)
    return nll_BM, (logits_BMV, targets_BM, log_normalizer_BM)


def _nll_backward(residuals: tuple, d_BM: jax.Array) -> tuple[jax.Array, None]:
    logits_BMV, targets_BM, log_normalizer_BM = residuals
    probabilities_BMV = jnp.exp(logits_BMV - log_normalizer_BM[..., None])
    target_BMV = targets_BM[..., None] == jnp.arange(logits_BMV.shape[-1])[None, None]
    return (probabilities_BMV - target_BMV) * d_BM[..., None], None


negative_log_likelihood.defvjp(_nll_forward, _nll_backward)


def _target_logits(logits_BMV: jax.Array, targets_BM: jax.Array) -> jax.Array:
    return jnp.take_along_axis(logits_BMV, targets_BM[..., None], axis=-1)[..., 0]


def discriminator_sums(
    logits_BT: jax.Array, replaced_BT: jax.Array, in_use_BT: jax.Array, *, with_auc: bool = False
) -> Sums:
    """Returns sums of the discriminator: binary cross-entropy and counts of the confusion matrix.

    All tokens except padding count, [CLS] and [SEP] included.
    """
    positive, use = replaced_BT & in_use_BT, in_use_BT
    labels = positive.astype(jnp.float32)
    nll_BT = jnp.maximum(logits_BT, 0) - logits_BT * labels + jnp.log1p(jnp.exp(-jnp.abs(logits_BT)))
    predicted_BT = logits_BT > 0

    def count(x: jax.Array) -> jax.Array:
        return jnp.sum(x, dtype=jnp.float32)

    sums = {
        "discriminator_nll_sum": jnp.sum(jnp.where(use, nll_BT, 0.0)),
        "discriminator_correct_sum": count(use & (predicted_BT == replaced_BT)),
        "replaced_sum": count(positive),
        "said_replaced_sum": count(use & predicted_BT),  # predicted positives
        "found_replaced_sum": count(positive & predicted_BT),  # true positives
    }
    if with_auc:
        bins_BT = jnp.clip((logits_BT + AUC_RANGE) * (AUC_BINS / (2 * AUC_RANGE)), 0, AUC_BINS - 1).astype(jnp.int32)
        empty = jnp.zeros((AUC_BINS,), jnp.float32)
        sums["replaced_histogram"] = empty.at[bins_BT].add(labels)
        sums["original_histogram"] = empty.at[bins_BT].add((use & ~replaced_BT).astype(jnp.float32))
    return sums


def electra_metrics(sums: Mapping[str, Any], config: ObjectiveConfig) -> dict[str, float]:
    """Returns metrics by their public names, from the sums of one or of many steps.

    `discriminator_precision` and `discriminator_recall` refer to the class "replaced" (google-research/electra's are
    weighted accuracies). They are 0 where no token was predicted as replaced, or none was replaced. The area under the
    ROC curve is exact up to 1/64 of a logit.
    """
    s = {name: np.asarray(value, np.float64) for name, value in sums.items()}

    def ratio(numerator: str, denominator: str) -> float:
        return float(s[numerator] / s[denominator]) if s[denominator] > 0 else 0.0

    metrics = {
        "generator_loss": ratio("generator_nll_sum", "masked_count"),
        "generator_accuracy": ratio("generator_correct_sum", "masked_count"),
        "sampled_accuracy": ratio("sampled_correct_sum", "masked_count"),
        "fill_fraction": ratio("token_count", "slot_count"),
    }
    loss = config.generator_weight * metrics["generator_loss"]
    if "discriminator_nll_sum" in s:
        metrics |= {
            "discriminator_loss": ratio("discriminator_nll_sum", "token_count"),
            "discriminator_accuracy": ratio("discriminator_correct_sum", "token_count"),
            "discriminator_precision": ratio("found_replaced_sum", "said_replaced_sum"),
            "discriminator_recall": ratio("found_replaced_sum", "replaced_sum"),
            "replaced_fraction": ratio("replaced_sum", "token_count"),
        }
        loss += config.discriminator_weight * metrics["discriminator_loss"]
    if "replaced_histogram" in s:
        metrics["discriminator_auc"] = roc_auc(s["replaced_histogram"], s["original_histogram"])
    return {"loss": loss} | metrics


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Returns the probability that a positive scores above a negative. Ties count half; 0.5 if either is absent.

    Args:
      positive, negative: histograms of scores over the same bins, in ascending order.
    """
    if positive.sum() == 0 or negative.sum() == 0:
        return 0.5
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))
