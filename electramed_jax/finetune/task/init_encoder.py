"""What a run starts from: an encoder's parameters, or its sizes alone, and the vocabulary it speaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class InitEncoder:
    """An encoder to fine-tune.

    Attributes:
      source: for a person: where it is from.
      model: sizes and numerics; what it says of a generator means nothing here.
      tokens: the vocabulary, by id.
      lower_case: whether text is lower-cased.
      params: float32 numpy, named as in `model.py`: {"embeddings": ..., "encoder": ...} and perhaps a "head";
        {} from scratch.
    """

    source: str
    model: ModelConfig
    tokens: Sequence[str]
    lower_case: bool
    params: dict[str, Any]


def into(state: TrainState, params: dict[str, Any]) -> TrainState:
    """The fresh state with what `params` holds in place of its own.

    A head is taken only where it has the shapes of the state's: of another task it is of no use.
    """
    taken = tree_rules.named_leaves(params)
    fresh = tree_rules.named_leaves(state.params)
    head = [name for name in fresh if name.startswith("head/")]
    if any(name not in taken or taken[name].shape != fresh[name].shape for name in head):
        taken = {name: leaf for name, leaf in taken.items() if not name.startswith("head/")}
    if taken:
        wrong = [n for n in fresh if n not in head and (n not in taken or taken[n].shape != fresh[n].shape)]
        wrong += [n for n in taken if n not in fresh]
        assert not wrong, f"not of the model's shapes: {', '.join(wrong)}"

    return state_lib.replace_params(state, tree_rules.map_named(lambda name, leaf: taken.get(name, leaf), state.params))
