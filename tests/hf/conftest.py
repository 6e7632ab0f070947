"""Fixtures: a small pair of networks with random parameters, and its vocabulary."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest

from electramed_jax.common.tree_rules import map_named
from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, ObjectiveConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.hf.card import CardData
from electramed_jax.pretrain.state import init_params

# The id of [PAD] is not 0 here, so that no test passes by assuming that it is.
TOKENS = ["[MASK]", "[UNK]", "the", "[PAD]", "[CLS]", "[SEP]"]
TOKENS += [
    *"abcdefghijklmnopqrstuvwxyz.,",
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
]
TOKENS += ["aspirin", "in", "##hibit", "fever"]
SIZES = {
    "vocab_size": len(TOKENS),
    "max_positions": 24,
    "embedding_size": 12,
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 20,
    "generator_hidden_size": 8,
    "generator_num_layers": 3,
    "generator_num_heads": 4,
    "generator_intermediate_size": 10,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Pair:
    config: Config
    params: dict
    vocabulary: list[str]
    card_data: CardData

    @property
    def model(self) -> ModelConfig:
        return self.config.model


@functools.cache
def shapes_of(config: Config) -> dict:
    return jax.eval_shape(lambda: init_params(config))


@pytest.fixture(scope="session")
def make_pair() -> Callable[..., Pair]:
    """Returns make_pair(seed, tying=..., kind=..., **sizes); all parameters are random, those of padded rows too."""

    def make(seed: int = 0, *, tying: str = "embeddings", kind: str = "electra", **sizes: int) -> Pair:
        config = Config(
            model=ModelConfig(tying=tying, **SIZES | sizes),
            objective=ObjectiveConfig(kind=kind),
            data=DataConfig(max_seq_length=24, special=SpecialIds(pad=3, unk=1, cls=4, sep=5, mask=0)),
        )
        rng = np.random.default_rng(seed)

        def random_leaf(name: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            values = rng.normal(size=leaf.shape).astype(np.float32)
            if name.endswith("kernel"):
                return values / 2
            return 1 + values / 5 if name.endswith("scale") and "delta" not in name else values / 4

        params = map_named(random_leaf, shapes_of(config))
        card_data = CardData("generated", {"documents": 3}, {"steps": 7}, {"discriminator_auc": 0.5})
        return Pair(config, params, list(TOKENS), card_data)

    return make
