"""The encoder that a fine-tuning run starts from."""

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


def load_init_encoder(config: FinetuneConfig) -> InitEncoder:
    """The encoder that `config.init` names, or the sizes of one from scratch."""

    params: dict[str, Any] = {}
    if config.init != SCRATCH and workdir.is_finetuned(config.init):
        held = load_model.load_finetuned(config.init)
        params, model, tokens = held.params, held.described.model, held.tokens
        source = f"{config.init} (seed {held.seed}), which began as {held.described.source}"
        encoder = encoders.PretrainedEncoder({}, model, tokens, held.described.lower_case, source)
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
            {}, model, vocab.read_vocab(config.vocab), config.lower_case, config.init_size_from
        )
    else:
        encoder = encoders.load_encoder_sizes(config.init_size_from)
    model = dataclasses.replace(
        encoder.model,
        vocab_size=len(encoder.tokens),
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        compute_dtype=config.compute_dtype,
        remat=config.remat,
    )
    if config.task.max_seq_length > model.max_positions:
        raise UserError(
            f"config.task.max_seq_length={config.task.max_seq_length}: the encoder has positions for {model.max_positions}"
        )
    source = f"scratch, of the sizes of {encoder.source}" if config.init == SCRATCH else encoder.source
    return InitEncoder(source, model, encoder.tokens, encoder.lower_case, params)


def unflatten_encoder(leaves: dict[str, Any]) -> dict[str, Any]:
    """{"embeddings": {...}, "encoder": {...}} of an encoder's leaves."""

    ours = {n if n.startswith(tying.EMBEDDINGS) else f"encoder/{n}": leaf for n, leaf in leaves.items()}
    return tying.unflatten(ours)
