"""What a checkpoint does with a few validation rows: what was masked, what the generator drew, what the discriminator
says of each token.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.data.dataset.loader import ordered_batches
from electramed_jax.data.tokenizer import vocab
from electramed_jax.model import masking
from electramed_jax.pretrain import loop, step
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.pretrain.state import merge_params
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib

TOKENS = 64  # of a row that are shown
GUESSES = 3  # of the generator, the likeliest


@dataclasses.dataclass(frozen=True)
class Token:
    """One word piece of a row.

    Attributes:
      text: as the discriminator saw it.
      original: as it was written.
      masked: whether the generator was asked for it.
      guesses: the generator's likeliest, with their probabilities; none where it was not asked.
      replaced_probability: the discriminator's; None where there is no discriminator.
    """

    text: str
    original: str
    masked: bool
    guesses: tuple[tuple[str, float], ...]
    replaced_probability: float | None

    @property
    def replaced(self) -> bool:
        return self.text != self.original


def of_checkpoint(workdir: str, count: int, data: str | None = None) -> tuple[int, list[list[Token]]]:
    """The newest checkpoint's step, and the beginnings of `count` rows spread evenly over the validation split.

    Rows and masks are functions of the dataset and the config: two runs that agree in those are asked the same.

    Raises:
      UserError: no checkpoint, or its dataset is not here.
    """
    config = workdirs.read_config(workdir)
    if data:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=data))
    config, dataset = loop.resolve_with_dataset(config)
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = load_pretrained_state(workdir, mesh)[1]
        where = sharding.batch_sharding(mesh)
        rows = [b["input_ids"] for b in ordered_batches(dataset, "validation", 1, where, count)]
        seen = jax.device_get(jax.jit(functools.partial(_look, config))(state.params, jnp.concatenate(rows)))
    tokens = vocab.read_vocab(files.join(workdir, vocab.VOCAB_FILE))
    return int(state.step), [_row(tokens, config, seen, number) for number in range(len(rows))]


def _look(config: Config, params: state_lib.Params, ids_BT: jax.Array) -> dict[str, jax.Array]:
    """Both networks on rows masked as an evaluation's first batch is."""
    model = merge_params(config, params)
    drawn = step.sample_masks(ids_BT, config, "validation", jnp.int32(0))
    structure = masking.packed_segments(ids_BT, config.data.special)
    logits_BMV = model.generator_logits(drawn.masked, structure, None)
    sampled_BM = masking.sample_tokens(
        drawn.uniform_BM,
        logits_BMV,
        temperature=config.objective.temperature,
        forbidden_BM=drawn.masked.targets_BM if config.objective.disallow_correct else None,
    )
    corrupted_BT = masking.scatter_tokens(ids_BT, drawn.masked.positions_BM, sampled_BM)
    best_BMK, guesses_BMK = jax.lax.top_k(jax.nn.softmax(logits_BMV.astype(jnp.float32)), GUESSES)
    seen = {
        "original": ids_BT,
        "corrupted": corrupted_BT,
        "positions": drawn.masked.positions_BM,
        "weights": drawn.masked.weights_BM,
        "guesses": guesses_BMK,
        "probabilities": best_BMK,
    }
    if config.objective.kind != "mlm":
        seen["verdicts"] = jax.nn.sigmoid(model.discriminator_logits(corrupted_BT, structure, None))
    return seen


def _row(tokens: list[str], config: Config, seen: dict[str, np.ndarray], number: int) -> list[Token]:
    asked = {
        int(position): slot
        for slot, (position, weight) in enumerate(zip(seen["positions"][number], seen["weights"][number], strict=True))
        if weight
    }
    knows = config.objective.kind != "uniform"
    row = []
    for place, original in enumerate(seen["original"][number][:TOKENS]):
        if original == config.data.special.pad:
            break
        slot = asked.get(place)
        guesses = ()
        if slot is not None and knows:
            pairs = zip(seen["guesses"][number, slot], seen["probabilities"][number, slot], strict=True)
            guesses = tuple((tokens[i], float(p)) for i, p in pairs)
        row.append(
            Token(
                text=tokens[seen["corrupted"][number, place]],
                original=tokens[original],
                masked=slot is not None,
                guesses=guesses,
                replaced_probability=float(seen["verdicts"][number, place]) if "verdicts" in seen else None,
            )
        )
    return row


def counts(rows: list[list[Token]]) -> dict[str, Any]:
    """How many tokens are shown, were masked and replaced, and how many of those were found."""
    every = [token for row in rows for token in row]
    replaced = [token for token in every if token.replaced]
    said = [token for token in every if (token.replaced_probability or 0) > 0.5]
    return {
        "tokens": len(every),
        "masked": sum(token.masked for token in every),
        "replaced": len(replaced),
        "found": sum(token.replaced for token in said),
        "false_alarms": sum(not token.replaced for token in said),
    }
