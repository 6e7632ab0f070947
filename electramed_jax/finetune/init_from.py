"""Loads the encoder that a fine-tuning run starts from."""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.config.finetune import SCRATCH, FinetuneConfig
from electramed_jax.config.presets import PRESETS
from electramed_jax.data.tokenizer import vocab
from electramed_jax.finetune import load_model
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.training import workdir
from electramed_jax.hf import encoder as encoders
from electramed_jax.hf.format import tying
from electramed_jax.model.automatic import plain_model


def load_init_encoder(config: FinetuneConfig) -> InitEncoder:
    """Returns the encoder of `config.init`; for "scratch", the sizes and vocabulary of `config.init_size_from`.

    Raises:
      UserError: there is no such encoder, or it has too few positions.
    """
    params: dict[str, Any] = {}
    if config.init != SCRATCH and workdir.is_finetuned(config.init):
        trained = load_model.load_finetuned(config.init)
        params, spec = trained.params, trained.spec
        source = f"{config.init} (seed {trained.seed}), which began as {spec.source}"
        encoder = encoders.PretrainedEncoder({}, spec.model, trained.tokens, spec.lower_case, source, spec.keep_accents)
    elif config.init != SCRATCH:
        encoder = encoders.load_encoder(config.init)
        params = unflatten_encoder(encoder.leaves)
    elif config.init_size_from in PRESETS:
        if not config.vocab:
            raise UserError(
                f"config.init_size_from={config.init_size_from} needs a vocabulary; add --config.vocab=vocab.txt"
            )
        model = PRESETS[config.init_size_from].model
        encoder = encoders.PretrainedEncoder(
            {}, model, vocab.read_vocab(config.vocab), config.lower_case, config.init_size_from, config.keep_accents
        )
    else:
        encoder = encoders.load_encoder_sizes(config.init_size_from)
    model = dataclasses.replace(
        plain_model(encoder.model),
        vocab_size=len(encoder.tokens),
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        attention_dropout_hash="single",  # a run is the same on every device
        compute_dtype=config.compute_dtype,
        remat=config.remat,
    )
    if config.task.max_seq_length > model.max_positions:
        raise UserError(
            f"config.task.max_seq_length={config.task.max_seq_length}: the encoder has {model.max_positions} "
            "positions; use a smaller max_seq_length"
        )
    if config.optimizer.freeze_layers > model.num_layers:
        raise UserError(
            f"config.optimizer.freeze_layers={config.optimizer.freeze_layers}: the encoder has only {model.num_layers}"
        )
    source = f"scratch, of the sizes of {encoder.source}" if config.init == SCRATCH else encoder.source
    return InitEncoder(source, model, encoder.tokens, encoder.lower_case, params, encoder.keep_accents)


def unflatten_encoder(leaves: dict[str, Any]) -> dict[str, Any]:
    """Returns {"embeddings": {...}, "encoder": {...}} from an encoder's leaves by name."""
    named = {name if name.startswith(tying.EMBEDDINGS) else f"encoder/{name}": leaf for name, leaf in leaves.items()}
    return tying.unflatten(named)
