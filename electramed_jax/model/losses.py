"""The losses of ELECTRA and Electric, as sums and counts, and the metrics computed from them.

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
from electramed_jax.model.heads import negative_log_likelihood, target_logits

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
      loss: generator_weight · mean MLM loss + discriminator_weight · mean RTD loss (the latter not for kind "mlm")
        + corrective_weight · mean loss of the corrective head.
      sums: input of `electra_metrics`.
    """
    denominators = loss_denominators(masked, structure) if denominators is None else denominators
    logits_BMV = model.generator_logits(masked, structure, generator_key)
    sampled_BM = jax.lax.stop_gradient(sample(logits_BMV))
    sums = generator_sums(logits_BMV, sampled_BM, masked)
    if config.kind == "uniform":
        sums["generator_correct_sum"] = jnp.float32(0)  # it has no best token
    loss = config.generator_weight * sums["generator_nll_sum"] / denominators.masked
    sums |= _row_sums(ids_BT, structure)
    if config.kind != "mlm":
        corrupted_BT = masking.scatter_tokens(ids_BT, masked.positions_BM, sampled_BM)
        replaced_BT = corrupted_BT != ids_BT  # a sample equal to the original is labelled original
        h_BTD = model.discriminator_hidden(corrupted_BT, structure, discriminator_key)
        sums |= discriminator_sums(
            model.replaced_logits(h_BTD), replaced_BT, structure.segments_BT > 0, with_auc=with_auc
        )
        loss += config.discriminator_weight * sums["discriminator_nll_sum"] / denominators.tokens
        if config.has_corrective_head:
            sums |= corrective_sums(model.corrective_logits(h_BTD, masked.positions_BM), masked)
            loss += config.corrective_weight * sums["corrective_nll_sum"] / denominators.masked
    return loss, jax.lax.stop_gradient(sums)


def _row_sums(ids_BT: jax.Array, structure: masking.PackedSegments) -> Sums:
    """Returns the number of tokens except padding, and of the slots of the rows that have any.

    All-padding rows fill up the last batch of an evaluation; they are not rows of the dataset.
    """
    in_use_BT = structure.segments_BT > 0
    return {
        "token_count": jnp.sum(in_use_BT, dtype=jnp.float32),
        "slot_count": ids_BT.shape[1] * jnp.sum(jnp.any(in_use_BT, axis=1), dtype=jnp.float32),
    }


def electric_loss(
    model: Electra,
    ids_BT: jax.Array,
    masked: masking.MaskedTokens,
    structure: masking.PackedSegments,
    config: ObjectiveConfig,
    *,
    candidates_BT: jax.Array,
    sample: Callable[[jax.Array], jax.Array],
    denominators: LossDenominators | None = None,
    generator_key: jax.Array | None = None,
    discriminator_key: jax.Array | None = None,
    with_auc: bool = False,
) -> tuple[jax.Array, Sums]:
    """Returns the training loss of Electric and the sums that its metrics are computed from.

    The generator states the distribution q of every token given all others. The discriminator gives each token an
    energy, and is trained by noise-contrastive estimation to tell tokens of the text from samples of q: exp(-energy)
    becomes the probability of the token given the others. Source: Clark et al. 2020, "Pre-Training Transformers as
    Energy-Based Cloze Models", section 2.2 and algorithm 1. Differences from google-research/electra: special tokens,
    which are never noise, do not count, and the ratio of noise to data is that of the row.

    Args:
      candidates_BT: bool[B, T], the tokens that may become noise: all but special tokens.
      others: as in `electra_loss`; the denominators are both the candidates of the batch.

    Returns:
      loss: generator_weight · mean cloze loss + discriminator_weight · mean contrastive loss, over candidates.
      sums: input of `electra_metrics`; "replaced" means noise, also where the sample equals the original token.
    """
    denominators = electric_denominators(candidates_BT) if denominators is None else denominators
    h_BTD = model.generator_hidden(ids_BT, structure, generator_key)
    logits_BMV = jax.lax.stop_gradient(model.token_logits(h_BTD, masked.positions_BM))
    sampled_BM = sample(logits_BMV)
    nll_BT, correct_BT = model.token_nll(h_BTD, ids_BT)
    noise = electric_noise(ids_BT, masked, candidates_BT, sampled_BM, logits_BMV, jax.lax.stop_gradient(nll_BT))
    energy_BT = model.discriminator_logits(noise.ids_BT, structure, discriminator_key)
    sums = _row_sums(ids_BT, structure) | {
        "generator_nll_sum": jnp.sum(jnp.where(candidates_BT, nll_BT, 0.0)),
        "generator_correct_sum": jnp.sum(candidates_BT & correct_BT, dtype=jnp.float32),
        "sampled_correct_sum": jnp.sum(masked.weights_BM * (sampled_BM == masked.targets_BM)),
        "noise_count": jnp.sum(masked.weights_BM),
        "candidate_count": jnp.sum(candidates_BT, dtype=jnp.float32),
    }
    sums |= discriminator_sums(energy_BT + noise.log_odds_BT, noise.is_noise_BT, candidates_BT, with_auc=with_auc)
    loss = config.generator_weight * sums["generator_nll_sum"] / denominators.masked
    loss += config.discriminator_weight * sums["discriminator_nll_sum"] / denominators.tokens
    return loss, jax.lax.stop_gradient(sums)


def electric_denominators(candidates_BT: jax.Array) -> LossDenominators:
    """Returns the denominators of `electric_loss`: both losses are means over the tokens that may become noise."""
    count = jnp.maximum(jnp.sum(candidates_BT, dtype=jnp.float32), 1.0)
    return LossDenominators(count, count)


class NoisedTokens(NamedTuple):
    """Rows in which some tokens are samples of q."""

    ids_BT: jax.Array  # int32
    is_noise_BT: jax.Array  # bool
    log_odds_BT: jax.Array  # float32: the logit that a token with energy 0 is noise


def electric_noise(
    ids_BT: jax.Array,
    masked: masking.MaskedTokens,
    candidates_BT: jax.Array,
    sampled_BM: jax.Array,
    logits_BMV: jax.Array,
    nll_BT: jax.Array,
) -> NoisedTokens:
    """Puts the sampled tokens into the rows.

    A token of a row with k noise tokens among n candidates is noise with probability
    k q / (k q + (n - k) exp(-energy)), so the logit is energy + log q + log(k / (n - k)).

    Args:
      logits_BMV: of q at the masked positions.
      nll_BT: -log q of the original tokens.
    """
    corrupted_BT = masking.scatter_tokens(ids_BT, masked.positions_BM, sampled_BM)
    noise_BT = masking.scatter_tokens(jnp.zeros_like(ids_BT), masked.positions_BM, jnp.ones_like(sampled_BM)) > 0
    rows_B1 = jnp.arange(len(ids_BT))[:, None]
    sampled_nll_BM = negative_log_likelihood(logits_BMV, sampled_BM)
    nll_BT = nll_BT.at[rows_B1, masked.positions_BM].set(sampled_nll_BM, mode="drop")
    noise_B1 = jnp.sum(noise_BT, axis=1, keepdims=True, dtype=jnp.float32)
    data_B1 = jnp.sum(candidates_BT, axis=1, keepdims=True, dtype=jnp.float32) - noise_B1
    # At least 1: a row of padding has neither, and a row of one word has no data.
    log_ratio_B1 = jnp.log(jnp.maximum(noise_B1, 1.0) / jnp.maximum(data_B1, 1.0))
    return NoisedTokens(corrupted_BT, noise_BT, log_ratio_B1 - nll_BT)


@jax.named_scope("generator_loss")
def generator_sums(logits_BMV: jax.Array, sampled_BM: jax.Array, masked: masking.MaskedTokens) -> Sums:
    """Returns sums of the generator over the masked positions: negative log likelihood, correct predictions."""
    nll_BM = negative_log_likelihood(logits_BMV, masked.targets_BM)
    weights_BM = masked.weights_BM
    # Equals an argmax over V, except for ties, and reuses the maximum that the normalizer needs.
    correct_BM = target_logits(logits_BMV, masked.targets_BM) >= jnp.max(logits_BMV, axis=-1)
    return {
        "generator_nll_sum": jnp.sum(weights_BM * nll_BM),
        "generator_correct_sum": jnp.sum(weights_BM * correct_BM),
        "sampled_correct_sum": jnp.sum(weights_BM * (sampled_BM == masked.targets_BM)),
        "masked_count": jnp.sum(weights_BM),
    }


@jax.named_scope("corrective_loss")
def corrective_sums(logits_BMV: jax.Array, masked: masking.MaskedTokens) -> Sums:
    """Returns sums of the corrective head over the masked positions: negative log likelihood, correct predictions."""
    correct_BM = target_logits(logits_BMV, masked.targets_BM) >= jnp.max(logits_BMV, axis=-1)
    return {
        "corrective_nll_sum": jnp.sum(masked.weights_BM * negative_log_likelihood(logits_BMV, masked.targets_BM)),
        "corrective_correct_sum": jnp.sum(masked.weights_BM * correct_BM),
    }


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

    is_electric = config.kind == "electric"
    predicted = "candidate_count" if is_electric else "masked_count"
    classified = "candidate_count" if is_electric else "token_count"
    metrics = {
        "generator_loss": ratio("generator_nll_sum", predicted),
        "generator_accuracy": ratio("generator_correct_sum", predicted),
        "sampled_accuracy": ratio("sampled_correct_sum", "noise_count" if is_electric else "masked_count"),
        "fill_fraction": ratio("token_count", "slot_count"),
    }
    loss = config.generator_weight * metrics["generator_loss"]
    if "discriminator_nll_sum" in s:
        metrics |= {
            "discriminator_loss": ratio("discriminator_nll_sum", classified),
            "discriminator_accuracy": ratio("discriminator_correct_sum", classified),
            "discriminator_precision": ratio("found_replaced_sum", "said_replaced_sum"),
            "discriminator_recall": ratio("found_replaced_sum", "replaced_sum"),
            "replaced_fraction": ratio("replaced_sum", classified),
        }
        loss += config.discriminator_weight * metrics["discriminator_loss"]
    if "corrective_nll_sum" in s:
        metrics |= {
            "corrective_loss": ratio("corrective_nll_sum", "masked_count"),
            "corrective_accuracy": ratio("corrective_correct_sum", "masked_count"),
        }
        loss += config.corrective_weight * metrics["corrective_loss"]
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
