"""The encoder that a fine-tuning run starts from: its parameters, or only its sizes, and its vocabulary."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class InitEncoder:
    """An encoder to fine-tune.

    Attributes:
      source: where it is from, for messages and results.
      model: sizes and numerics; its generator settings are not used.
      tokens: the vocabulary, by id.
      lower_case, keep_accents: normalization of text, as in `Tokenizer`.
      params: float32 numpy, named as in `training/model.py`: {"embeddings": ..., "encoder": ...} and optionally
        "head"; {} for training from scratch.
    """

    source: str
    model: ModelConfig
    tokens: Sequence[str]
    lower_case: bool
    params: dict[str, Any]
    keep_accents: bool = False

    def make_tokenizer(self, never_split: Sequence[str] = ()) -> Tokenizer:
        """Returns the tokenizer of the encoder; the tokens in `never_split` are always one piece."""
        return Tokenizer.from_tokens(self.tokens, self.lower_case, never_split, keep_accents=self.keep_accents)


def with_encoder_params(state: TrainState, params: dict[str, Any]) -> TrainState:
    """Returns the state with the leaves of `params` in place of its own.

    The head of `params` is used only if its shapes are those of the state's head: the head of another task is useless.
    """
    given = tree_rules.named_leaves(params)
    own = tree_rules.named_leaves(state.params)
    head = [name for name in own if name.startswith("head/")]
    if any(name not in given or given[name].shape != own[name].shape for name in head):
        given = {name: leaf for name, leaf in given.items() if not name.startswith("head/")}
    if given:
        wrong = [n for n in own if n not in head and (n not in given or given[n].shape != own[n].shape)]
        wrong += [n for n in given if n not in own]
        assert not wrong, f"leaves without the model's shapes: {', '.join(wrong)}"

    return state_lib.replace_params(state, tree_rules.map_named(given.get, state.params))
