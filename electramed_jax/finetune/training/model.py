"""The pre-trained encoder with a task head.

Parameters have the names of pre-training, so that the rules for sharding and weight decay apply to them:

    embeddings/...                  those of the discriminator
    encoder/project, encoder/layers
    head/crf/transitions            transition scores, if the head has a CRF
    head/dense, head/logit          Hugging Face's ElectraForTokenClassification (logit alone),
                                    ElectraForSequenceClassification (both), ElectraForQuestionAnswering (logit alone)
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from electramed_jax.config.finetune import CLS, POOLED_VECTORS
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.finetune.task.task import Head
from electramed_jax.finetune.training import pooling
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN
from electramed_jax.model import masking
from electramed_jax.model.encoder import Embeddings, Encoder, embed
from electramed_jax.model.layers import Dense, dropout, gelu, glorot_uniform, split_key, truncated_normal
from electramed_jax.model.ops import dropout_bits
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params


class Crf(nnx.Module):
    """Transition scores of a conditional random field, float32[labels + 1, labels]; see `crf`."""

    def __init__(self, size: int):
        self.transitions = nnx.Param(jnp.zeros((size + 1, size), jnp.float32))


class TaskHead(nnx.Module):
    """Computes float32 logits of every token; see `task.Head`. A "sequence" head is read at [CLS] only."""

    def __init__(self, config: ModelConfig, head: Head, *, rngs: nnx.Rngs):
        D, dtype = config.hidden_size, jnp.dtype(config.compute_dtype)
        self.kind, self.dropout_rate = head.kind, config.dropout
        if head.kind == SEQUENCE:
            initializer = truncated_normal(config.kernel_stddev)
            width = D * POOLED_VECTORS[head.pooling]
            self.dense = Dense("btd,de->bte", (width, D), (D,), rngs=rngs, dtype=dtype, initializer=initializer)
        # Glorot uniform, as in google-research/electra: Hugging Face's normal(0.02) is too narrow for small encoders.
        self.logit = Dense(
            "btd,dk->btk", (D, head.size), (head.size,), rngs=rngs, dtype=jnp.float32, initializer=glorot_uniform
        )
        if head.crf:
            self.crf = Crf(head.size)

    def __call__(self, h_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        """Returns float32[B, T, K]."""
        hidden_key, dense_key = split_key(key if self.kind != SPAN else None, 2)
        rows = h_BTD.shape[:1]
        h_BTD = dropout(h_BTD, self.dropout_rate, dropout_bits.dropout_seeds(hidden_key, rows))
        if self.kind == SEQUENCE:
            h_BTD = dropout(gelu(self.dense(h_BTD)), self.dropout_rate, dropout_bits.dropout_seeds(dense_key, rows))
        return self.logit(h_BTD)


class FinetuneModel(nnx.Module):
    """Embeddings, encoder and task head."""

    def __init__(self, config: ModelConfig, head: Head, *, rngs: nnx.Rngs):
        self.spec = head
        self.embeddings = Embeddings(config, config.embedding_size, rngs=rngs)
        self.encoder = Encoder(config.discriminator, config, config.embedding_size, rngs=rngs)
        self.head = TaskHead(config, head, rngs=rngs)

    def logits(self, ids_BT: jax.Array, structure: masking.PackedSegments, key: jax.Array | None = None) -> jax.Array:
        """Returns float32[B, T, K] for packed rows. Attention stays inside each example. No dropout without a key."""
        encoder_key, head_key = split_key(key, 2)
        x_BTE = embed(self.embeddings.as_dict(), ids_BT, structure)
        h_BTD = self.encoder.encode(x_BTE, structure.segments_BT, encoder_key)
        if self.spec.pooling != CLS:
            h_BTD = pooling.pool(h_BTD, ids_BT, structure, self.spec)
        return self.head(h_BTD, head_key)

    @property
    def transitions(self) -> jax.Array | None:
        """Transition scores of the head's CRF; None without one."""
        return self.head.crf.transitions[...] if self.spec.crf else None


def init_params(config: ModelConfig, head: Head, key: jax.Array) -> Params:
    """Returns fresh parameters of embeddings, encoder and head."""
    return state_lib.model_params(FinetuneModel(config, head, rngs=nnx.Rngs(params=key)))


@functools.lru_cache(maxsize=8)
def _abstract_model(config: ModelConfig, head: Head) -> tuple[nnx.GraphDef, nnx.State]:
    return state_lib.abstract_model(lambda: FinetuneModel(config, head, rngs=nnx.Rngs(params=jax.random.key(0))))


def merge_params(config: ModelConfig, head: Head, params: Params) -> FinetuneModel:
    """Returns the model with these parameters; for use inside a traced function."""
    return state_lib.merge_params(*_abstract_model(config, head), params)
