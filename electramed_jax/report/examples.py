"""Applies a checkpoint to validation rows: masked tokens, generator samples and discriminator predictions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from electramed_jax.config.pretrain import Config, MeshConfig
from electramed_jax.data.dataset.loader import ordered_batches
from electramed_jax.model import losses, masking
from electramed_jax.pretrain import loop, step
from electramed_jax.pretrain import workdir as workdirs
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.pretrain.state import merge_params
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib

MAX_TOKENS = 64  # shown of a row
TOP_K = 3  # generator predictions shown of a masked token


@dataclasses.dataclass(frozen=True)
class Token:
    """A word piece of a row.

    Attributes:
      text: input of the discriminator.
      original: the token in the dataset.
      masked: whether the token was masked for the generator.
      guesses: the generator's most likely tokens with their probabilities; empty if the token was not masked.
      replaced_probability: the discriminator's output; None if there is no discriminator.
    """

    text: str
    original: str
    masked: bool
    guesses: tuple[tuple[str, float], ...]
    replaced_probability: float | None

    @property
    def replaced(self) -> bool:
        """Whether the generator replaced the token by another."""
        return self.text != self.original


def predict_rows(workdir: str, count: int, data: str | None = None) -> tuple[int, list[list[Token]]]:
    """Applies the newest checkpoint of a workdir to validation rows.

    Rows and masks depend on the dataset and the config alone: runs with the same dataset and config get the same rows
    and masks.

    Args:
      workdir: of a pre-training run.
      count: number of rows, spread evenly over the validation split.
      data: packed folder of the rows; None: the dataset of the run.

    Returns:
      The step of the checkpoint, and the first `MAX_TOKENS` tokens of each row.

    Raises:
      UserError: there is no checkpoint, or the dataset is not found.
    """
    config = workdirs.read_config(workdir)
    if data:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=data))
    config, dataset = loop.resolve_with_dataset(config)
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = load_pretrained_state(workdir, mesh)[1]
        batch_sharding = sharding.batch_sharding(mesh)
        rows = [b["input_ids"] for b in ordered_batches(dataset, "validation", 1, batch_sharding, count)]
        outputs = jax.device_get(jax.jit(functools.partial(_forward, config))(state.params, jnp.concatenate(rows)))
    tokens = workdirs.read_vocab(workdir, config)
    return int(state.step), [_tokens_of_row(tokens, config, outputs, row) for row in range(len(rows))]


def _forward(config: Config, params: state_lib.Params, ids_BT: jax.Array) -> dict[str, jax.Array]:
    """Runs both networks on rows, masked like the first batch of an evaluation."""
    model = merge_params(config, params)
    batch = step.sample_masks(ids_BT, config, "validation", jnp.int32(0))
    segments = masking.packed_segments(ids_BT, config.data.special)
    is_electric = config.objective.kind == "electric"
    if is_electric:
        h_BTD = model.generator_hidden(ids_BT, segments)  # a token's state does not depend on the token
        logits_BMV = model.token_logits(h_BTD, batch.masked.positions_BM)
    else:
        logits_BMV = model.generator_logits(batch.masked, segments, None)
    sampled_BM = masking.sample_tokens(
        batch.uniform_BM,
        logits_BMV,
        temperature=config.objective.temperature,
        forbidden_BM=batch.masked.targets_BM if config.objective.disallow_correct else None,
    )
    corrupted_BT = masking.scatter_tokens(ids_BT, batch.masked.positions_BM, sampled_BM)
    probabilities_BMK, guesses_BMK = jax.lax.top_k(jax.nn.softmax(logits_BMV.astype(jnp.float32)), TOP_K)
    outputs = {
        "original": ids_BT,
        "corrupted": corrupted_BT,
        "positions": batch.masked.positions_BM,
        "weights": batch.masked.weights_BM,
        "guesses": guesses_BMK,
        "probabilities": probabilities_BMK,
    }
    if config.objective.kind != "mlm":
        logits_BT = model.discriminator_logits(corrupted_BT, segments, None)
        if is_electric:
            candidates_BT = masking.maskable(ids_BT, config.data.special)
            nll_BT = model.token_nll(h_BTD, ids_BT)[0]
            noise = losses.electric_noise(ids_BT, batch.masked, candidates_BT, sampled_BM, logits_BMV, nll_BT)
            logits_BT += noise.log_odds_BT
        outputs["replaced_probabilities"] = jax.nn.sigmoid(logits_BT)
    return outputs


def _tokens_of_row(tokens: Sequence[str], config: Config, outputs: Mapping[str, np.ndarray], row: int) -> list[Token]:
    """Returns the tokens of a row up to its padding; `tokens` is the vocabulary."""
    masked = zip(outputs["positions"][row], outputs["weights"][row], strict=True)
    prediction_of = {int(position): index for index, (position, weight) in enumerate(masked) if weight}
    has_generator = config.objective.kind != "uniform"
    replaced_probabilities = outputs.get("replaced_probabilities")
    row_tokens = []
    for position, original in enumerate(outputs["original"][row][:MAX_TOKENS]):
        if original == config.data.special.pad:
            break
        index = prediction_of.get(position)
        guesses: tuple[tuple[str, float], ...] = ()
        if index is not None and has_generator:
            pairs = zip(outputs["guesses"][row, index], outputs["probabilities"][row, index], strict=True)
            guesses = tuple((tokens[i], float(p)) for i, p in pairs)
        row_tokens.append(
            Token(
                text=tokens[outputs["corrupted"][row, position]],
                original=tokens[original],
                masked=index is not None,
                guesses=guesses,
                replaced_probability=(
                    None if replaced_probabilities is None else float(replaced_probabilities[row, position])
                ),
            )
        )
    return row_tokens


def count_tokens(rows: Sequence[Sequence[Token]]) -> dict[str, int]:
    """Counts tokens, masked and replaced tokens, replaced tokens that were found, and false alarms."""
    tokens = [token for row in rows for token in row]
    predicted_replaced = [token for token in tokens if (token.replaced_probability or 0) > 0.5]
    return {
        "tokens": len(tokens),
        "masked": sum(token.masked for token in tokens),
        "replaced": sum(token.replaced for token in tokens),
        "found": sum(token.replaced for token in predicted_replaced),
        "false_alarms": sum(not token.replaced for token in predicted_replaced),
    }
