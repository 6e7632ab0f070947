"""Floating-point operations of a training step, counted from the sizes.

Only matrix products count, with two operations per multiply-add; forward plus backward is three times the forward.
Attention counts the whole T x T square, although several documents in a row mask a part of it. The generator's head
runs on the M gathered positions only. Recomputation is not counted: these are the operations of the model, not of the
compiled program.
"""

from __future__ import annotations

from electramed_jax.config.pretrain import Config, EncoderConfig, ModelConfig


def encoder_forward_flops(sizes: EncoderConfig, tokens: int, embedding_size: int) -> int:
    """Returns the operations of one encoder over one row of `tokens` tokens."""
    D, F, T = sizes.hidden_size, sizes.intermediate_size, tokens
    block = 2 * T * (4 * D * D + 2 * D * F) + 2 * 2 * T * T * D
    project = 2 * T * embedding_size * D if embedding_size != D else 0
    return sizes.num_layers * block + project


def token_head_forward_flops(hidden_size: int, embedding_size: int, vocab_size: int, positions: int) -> int:
    """Returns the operations of a head that predicts the tokens of one row at `positions` positions."""
    return 2 * positions * (hidden_size * embedding_size + embedding_size * vocab_size)


def train_step_flops(config: Config) -> int:
    """Returns the operations of one training step of `batch_size` rows. The config must be resolved."""
    model, T, M = config.model, config.data.max_seq_length, config.max_predictions
    row = 0
    if config.objective.kind != "mlm":
        D = model.hidden_size
        row += encoder_forward_flops(model.discriminator, T, model.embedding_size) + 2 * T * (D * D + D)
        if config.objective.has_corrective_head:
            row += token_head_forward_flops(D, model.embedding_size, model.vocab_size, M)
    if config.objective.kind != "uniform":
        E, Dg = model.generator_embedding_size, model.generator.hidden_size
        towers = 2 if config.objective.kind == "electric" else 1
        predicted = T + M if config.objective.kind == "electric" else M
        row += towers * encoder_forward_flops(model.generator, T, E)
        row += token_head_forward_flops(towers * Dg, E, model.vocab_size, predicted)
    return 3 * config.batch_size * row


def finetune_step_flops(model: ModelConfig, num_labels: int, rows: int, row_length: int) -> int:
    """Returns the operations of one fine-tuning step over `rows` rows: encoder and output layer."""
    row = encoder_forward_flops(model.discriminator, row_length, model.embedding_size)
    return 3 * rows * (row + 2 * row_length * model.hidden_size * num_labels)


# Peak of dense bfloat16 products, operations per second and device, by jax's `device_kind`. Source: data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,  # a device is one of the two cores of a chip
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak operations per second of one device, or None if unknown (CPUs)."""
    return PEAK_FLOPS.get(device_kind)
