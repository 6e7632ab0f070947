"""A model that compiles in seconds, and synthetic rows for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, ObjectiveConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.model import losses
from electramed_jax.pretrain.state import init_params, merge_params
from electramed_jax.pretrain.step import loss_fn, sample_masks
from electramed_jax.training import state

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
FIRST_WORD = 5  # this id and higher ones are words
DEFAULT_OBJECTIVE = ObjectiveConfig()


def config(row_length: int = 16, *, objective: ObjectiveConfig = DEFAULT_OBJECTIVE, **model: object) -> Config:
    """Returns a config of two layers without dropout; keyword arguments are settings of the model."""
    sizes = dict(
        vocab_size=150,
        max_positions=row_length,
        embedding_size=8,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=32,
        generator_hidden_size=12,
        generator_num_layers=2,
        generator_num_heads=2,
        generator_intermediate_size=24,
        dropout=0.0,
        attention_dropout=0.0,
        remat="none",
    )
    return Config(
        model=ModelConfig(**sizes | model),
        objective=objective,
        data=DataConfig(max_seq_length=row_length, special=SPECIAL),
    )


def loss_and_sums(config: Config, params: state.Params, ids_BT: np.ndarray) -> tuple[jax.Array, losses.Sums]:
    """Computes the loss and the metric sums of rows, masked and sampled like the first batch of a run, without dropout."""
    batch = sample_masks(jnp.asarray(ids_BT), config, "train", jnp.int32(0))
    return loss_fn(merge_params(config, params), batch, config, None, with_auc=False)


def noisy_params(config: Config, seed: int = 0) -> state.Params:
    """Returns parameters with noise of standard deviation 0.3. Initial parameters hardly attend to other tokens."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(config))
    is_scale = jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "scale", shapes)
    return jax.tree.map(
        lambda leaf, one: np.float32(0.3 * generator.standard_normal(leaf.shape) + one), shapes, is_scale
    )


def document(words: int, second: int = 0, seed: int = 0) -> list[int]:
    """Returns `[CLS] A [SEP]` with `words` words in A, or `[CLS] A [SEP] B [SEP]` with `second` words in B."""
    ids = np.random.default_rng([seed, words, second]).integers(FIRST_WORD, 150, words + second).tolist()
    tail = [*ids[words:], SPECIAL.sep] if second else []
    return [SPECIAL.cls, *ids[:words], SPECIAL.sep, *tail]


def row(*documents: list[int], length: int) -> np.ndarray:
    """Returns a row of the documents one after the other, then padding."""
    ids = [token for ids in documents for token in ids]
    assert len(ids) <= length
    return np.int32(ids + [SPECIAL.pad] * (length - len(ids)))
