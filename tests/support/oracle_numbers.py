"""Results of google-research/electra, mapped to the parameter tree of this project.

Five tiny configurations, c1 to c5, were run through google-research/electra @ 8a46635 with fixed random draws; `load` reads one
from the folder of reference data (see its README). `to_tree` converts variables by TensorFlow name to
our parameters, and `evaluator` computes our loss on the same batch, positions and Gumbel noise.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import quick

from electramed_jax.config.pretrain import Config, DataConfig, ModelConfig, ObjectiveConfig, OptimizerConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.model import losses, masking
from electramed_jax.pretrain.state import merge_params
from electramed_jax.training import state

CASES = ("c1", "c2", "c3", "c4", "c5")
REMAT = {"c1": "full", "c2": "dots"}  # two cases check that recomputation changes no number

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Oracle:
    """One reference configuration; arrays under the names of the reference's files."""

    folder: pathlib.Path
    config: Config
    inputs: Arrays
    outputs: Arrays
    scalars: Arrays

    def variables(self, file: str = "vars") -> dict[str, np.ndarray]:
        """Variables (or gradients, or slots) by TensorFlow name."""
        return read(self.folder / f"{file}.npz")

    def params(self, file: str = "vars", *, padding: float = 0.0) -> state.Params:
        """The variables as our parameter tree. `padding` fills the padded rows of the vocabulary."""
        return to_tree(self.variables(file), self.config.model, padding=padding)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


@functools.lru_cache
def load(shared_data: pathlib.Path, case: str) -> Oracle:
    folder = shared_data / "oracle" / case
    settings = json.loads((folder / "config.json").read_text())
    sizes, generator = settings["discriminator_bert_config"], settings["generator_bert_config"]
    pretraining, optimizer = settings["pretraining_config"], settings["optimizer"]
    if not pretraining["untied_generator"]:
        tying = "all"
    else:
        tying = "none" if pretraining["untied_generator_embeddings"] else "embeddings"
    config = Config(
        model=ModelConfig(
            vocab_size=sizes["vocab_size"],
            max_positions=sizes["max_position_embeddings"],
            embedding_size=pretraining["embedding_size"],
            hidden_size=sizes["hidden_size"],
            num_layers=sizes["num_hidden_layers"],
            num_heads=sizes["num_attention_heads"],
            intermediate_size=sizes["intermediate_size"],
            generator_hidden_size=generator["hidden_size"],
            generator_num_layers=generator["num_hidden_layers"],
            generator_num_heads=generator["num_attention_heads"],
            generator_intermediate_size=generator["intermediate_size"],
            tying=tying,
            dropout=0.0,
            attention_dropout=0.0,
            remat=REMAT.get(case, "none"),
        ),
        objective=ObjectiveConfig(
            kind="uniform" if pretraining["uniform_generator"] else "electra",
            mask_probability=pretraining["mask_prob"],
            generator_weight=pretraining["gen_weight"],
            discriminator_weight=pretraining["disc_weight"],
            temperature=pretraining["temperature"],
            disallow_correct=pretraining["disallow_correct"],
        ),
        optimizer=OptimizerConfig(
            learning_rate=optimizer["learning_rate"],
            warmup_steps=optimizer["warmup_steps"],
            beta1=optimizer["beta_1"],
            beta2=optimizer["beta_2"],
            epsilon=optimizer["epsilon"],
            weight_decay=optimizer["weight_decay_rate"],
            clip_norm=optimizer["clip_norm"],
        ),
        data=DataConfig(
            max_seq_length=pretraining["max_seq_length"],
            special=SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103),
        ),
        total_steps=optimizer["num_train_steps"],
    )
    return Oracle(
        folder, config, read(folder / "inputs.npz"), read(folder / "outputs.npz"), read(folder / "scalars.npz")
    )


def to_tree(variables: Arrays, model: ModelConfig, *, padding: float = 0.0) -> state.Params:
    """Converts variables by TensorFlow name to our parameter tree. Each variable is used exactly once.

    Layers are stacked, query, key and value fused, the axis of heads split, and the vocabulary padded with `padding`.
    """
    remaining = dict(variables)

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": remaining.pop(f"{name}/kernel"), "bias": remaining.pop(f"{name}/bias")}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": remaining.pop(f"{name}/gamma"), "bias": remaining.pop(f"{name}/beta")}

    def padded(x: np.ndarray) -> np.ndarray:
        widths = [(0, model.padded_vocab_size - model.vocab_size)] + [(0, 0)] * (x.ndim - 1)
        return np.pad(x, widths, constant_values=padding)

    def embeddings(prefix: str) -> dict[str, Any]:
        return {
            "word": padded(remaining.pop(f"{prefix}/word_embeddings")),
            "position": remaining.pop(f"{prefix}/position_embeddings"),
            "token_type": remaining.pop(f"{prefix}/token_type_embeddings"),
            "norm": norm(f"{prefix}/LayerNorm"),
        }

    def layer(prefix: str, heads: int) -> dict[str, Any]:
        qkv = [dense(f"{prefix}/attention/self/{part}") for part in ("query", "key", "value")]
        kernel_D3D = np.stack([part["kernel"] for part in qkv], axis=1)
        bias_3D = np.stack([part["bias"] for part in qkv])
        out, width = dense(f"{prefix}/attention/output/dense"), bias_3D.shape[-1]
        split = (heads, width // heads)
        return {
            "attention": {
                "qkv": {"kernel": kernel_D3D.reshape(width, 3, *split), "bias": bias_3D.reshape(3, *split)},
                "out": out | {"kernel": out["kernel"].reshape(*split, width)},
                "norm": norm(f"{prefix}/attention/output/LayerNorm"),
            },
            "feed_forward": {
                "up": dense(f"{prefix}/intermediate/dense"),
                "down": dense(f"{prefix}/output/dense"),
                "norm": norm(f"{prefix}/output/LayerNorm"),
            },
        }

    def encoder(scope: str, num_layers: int, heads: int) -> dict[str, Any]:
        layers = [layer(f"{scope}/encoder/layer_{i}", heads) for i in range(num_layers)]
        built = {"layers": jax.tree.map(lambda *each: np.stack(each), *layers)}
        if f"{scope}/embeddings_project/kernel" in remaining:
            built["project"] = dense(f"{scope}/embeddings_project")
        return built

    params = {
        "embeddings": embeddings("electra/embeddings"),
        "discriminator": encoder("electra", model.num_layers, model.num_heads)
        | {
            "head": {
                "dense": dense("discriminator_predictions/dense"),
                "logit": dense("discriminator_predictions/dense_1"),
            }
        },
    }
    if "generator_predictions/output_bias" in remaining:
        generator = {
            "head": {
                "dense": dense("generator_predictions/dense"),
                "norm": norm("generator_predictions/LayerNorm"),
                "output_bias": padded(remaining.pop("generator_predictions/output_bias")),
            }
        }
        if model.tying == "none":
            generator["embeddings"] = embeddings("generator/embeddings")
        if model.tying != "all":
            generator |= encoder("generator", model.generator_num_layers, model.generator_num_heads)
        params["generator"] = generator
    assert not remaining, f"not mapped: {sorted(remaining)}"
    return params


class Recorder:
    """Wraps the model of `losses.electra_loss` and records the arrays that pass between the two."""

    def __init__(self, model: Any):
        self.model = model
        self.recorded: dict[str, Any] = {}

    def generator_logits(self, masked: masking.MaskedTokens, structure: masking.PackedSegments, key: Any) -> jax.Array:
        self.recorded["generator_logits"] = self.model.generator_logits(masked, structure, key)
        return self.recorded["generator_logits"]

    def discriminator_hidden(self, ids_BT: jax.Array, structure: masking.PackedSegments, key: Any) -> jax.Array:
        self.recorded |= {"corrupted": ids_BT, "structure": structure}
        return self.model.discriminator_hidden(ids_BT, structure, key)

    def replaced_logits(self, h_BTD: jax.Array) -> jax.Array:
        self.recorded["discriminator_logits"] = self.model.replaced_logits(h_BTD)
        return self.recorded["discriminator_logits"]


class Evaluation(NamedTuple):
    """Our results."""

    loss: jax.Array
    sums: losses.Sums
    recorded: dict[str, Any]  # generator_logits, corrupted, structure, discriminator_logits
    gradients: state.Params


@functools.lru_cache
def evaluator(oracle: Oracle) -> Callable[[state.Params], Evaluation]:
    """Returns our loss and gradients on the reference's batch and random draws, as a jitted function of parameters."""
    config, ids_BT = oracle.config, jnp.asarray(oracle.inputs["input_ids"])
    masked = reference_masked(oracle)

    def sample(logits_BMV: jax.Array) -> jax.Array:
        """Samples like the reference: argmax of logits / temperature plus recorded Gumbel noise, the original 1000 lower."""
        logits = logits_BMV[..., : config.model.vocab_size] / config.objective.temperature
        if config.objective.disallow_correct:
            logits -= 1000.0 * jax.nn.one_hot(masked.targets_BM, config.model.vocab_size)
        noise = -jnp.log(-jnp.log(oracle.inputs["gumbel_uniform"] + 1e-9) + 1e-9)
        return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)

    def loss(params: state.Params) -> tuple[jax.Array, tuple[losses.Sums, dict[str, Any]]]:
        recorder = Recorder(merge_params(config, params))
        structure = masking.packed_segments(ids_BT, config.data.special)
        value, sums = losses.electra_loss(recorder, ids_BT, masked, structure, config.objective, sample=sample)
        return value, (sums, recorder.recorded)

    def evaluate(params: state.Params) -> Evaluation:
        (value, (sums, recorded)), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        return Evaluation(value, sums, recorded, gradients)

    return quick.jit(evaluate)


def reference_masked(oracle: Oracle) -> masking.MaskedTokens:
    """Returns the masked batch of the reference. Its unused slots are at position 0, ours are outside the row."""
    outputs = oracle.outputs
    used = outputs["masked_lm_weights"] > 0
    return masking.MaskedTokens(
        jnp.asarray(np.where(used, outputs["masked_lm_positions"], oracle.config.data.max_seq_length)),
        jnp.asarray(outputs["masked_lm_weights"]),
        jnp.asarray(outputs["masked_lm_ids"]),
        jnp.asarray(outputs["masked_input_ids"]),
    )


def is_key_bias(name: str) -> bool:
    """Returns whether a leaf is the fused qkv bias. The gradient of its keys is mathematically zero: only round-off."""
    return name.endswith("attention/qkv/bias")


def without_key_bias(name: str, leaf: Any) -> np.ndarray:
    """Returns a leaf of a parameter-shaped tree without the bias of keys."""
    leaf = np.asarray(leaf)
    return leaf[:, [0, 2]] if is_key_bias(name) else leaf
