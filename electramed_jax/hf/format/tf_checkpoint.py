"""Reads released checkpoints of google-research/electra (TensorFlow 1) and renames their variables to Hugging Face's.

The scope "electra" holds the discriminator's encoder and the shared embeddings. The scope "generator" holds the
generator's encoder; parts that are missing there are the discriminator's. Dense kernels are [in, out], as ours; Hugging
Face's are [out, in].
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import files
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, Sizes

INDEX, STATE = ".index", "checkpoint"  # suffix of a checkpoint's index file; file that names the newest checkpoint
NOT_WEIGHTS = re.compile(r"(.*/)?(adam_[mv]|global_step|Adam(_1)?|beta[12]_power)$")  # optimizer state
HEADS = {DISCRIMINATOR: "discriminator_predictions", GENERATOR: "generator_predictions"}
HEAD_SIZE = 64  # google-research/electra util/training_utils.py:109; a narrower encoder has one head

Variables = Mapping[str, np.ndarray]


def find_checkpoint(path: str) -> str | None:
    """Returns the prefix of the checkpoint that `path` is or contains; None if there is none.

    Raises:
      UserError: the folder has several checkpoints, and its file `checkpoint` names none of them.
    """
    if files.exists(path + INDEX):
        return path
    if not files.is_dir(path):
        return None
    names = [name.removesuffix(INDEX) for name in files.list_dir(path) if name.endswith(INDEX)]
    if files.exists(files.join(path, STATE)):
        newest = re.search(r'^model_checkpoint_path: "(.+)"', files.read_text(files.join(path, STATE)), re.MULTILINE)
        if newest and newest[1].split("/")[-1] in names:
            return files.join(path, newest[1].split("/")[-1])
    if len(names) > 1:
        raise UserError(
            f"{path}: several checkpoints ({', '.join(sorted(names))}); choose one: --input={path}/{names[0]}"
        )
    return files.join(path, names[0]) if names else None


def read_variables(prefix: str) -> dict[str, np.ndarray]:
    """Returns the variables by name, without optimizer state.

    Raises:
      UserError: TensorFlow is not installed or cannot read the checkpoint.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hides its messages about the CPU
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f"{prefix}: a checkpoint of TensorFlow, which is not installed; pip install 'electramed_jax[tf]'"
        ) from error
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in sorted(names) if not NOT_WEIGHTS.fullmatch(name)}
    except Exception as error:  # TensorFlow raises errors of its own classes and built-in ones
        reason = first_line(error)
        raise UserError(f"{prefix}: cannot be read as a checkpoint ({reason}); download it again") from error


def to_hf_tensors(variables: Variables) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Returns (Hugging Face's tensors by network, variables that belong to no network)."""
    tensors: dict[str, dict[str, np.ndarray]] = {}
    used: set[str] = set()
    for network, head in HEADS.items():
        names = _hf_names(variables, network)
        if any(name.startswith(head) for name in names.values()):
            tensors[network] = {theirs: _to_tensor(name, variables[name]) for theirs, name in names.items()}
            used |= set(names.values())
    return tensors, sorted(set(variables) - used)


def infer_sizes(tensors: Mapping[str, np.ndarray], num_heads: int | None = None) -> Sizes:
    """Returns the sizes that the shapes of the tensors imply.

    Args:
      tensors: by Hugging Face's name.
      num_heads: attention heads, which no shape shows; None: by ELECTRA's rule, heads of 64.
    """
    word = tensors["electra.embeddings.word_embeddings.weight"]
    up = tensors["electra.encoder.layer.0.intermediate.dense.weight"]
    layers = {match[1] for name in tensors if (match := re.match(r"electra\.encoder\.layer\.(\d+)\.", name))}
    return Sizes(
        vocab_size=word.shape[0],
        max_positions=tensors["electra.embeddings.position_embeddings.weight"].shape[0],
        embedding_size=word.shape[1],
        hidden_size=up.shape[1],
        num_layers=len(layers),
        num_heads=num_heads or max(1, up.shape[1] // HEAD_SIZE),
        intermediate_size=up.shape[0],
    )


def _hf_names(variables: Variables, network: str) -> dict[str, str]:
    """Returns {Hugging Face's name: variable}; a generator's own variables override the discriminator's."""
    scopes = ("electra/", "generator/") if network == GENERATOR else ("electra/",)
    own_encoder = any(name.startswith("generator/encoder/") for name in variables)
    names = {}
    for scope in scopes:
        for name in variables:
            inner = name.removeprefix(scope)
            shared = inner.startswith("embeddings/") or not own_encoder
            if name.startswith(scope) and (network == DISCRIMINATOR or scope == "generator/" or shared):
                names[_hf_name(f"electra/{inner}")] = name
    return names | {_hf_name(name): name for name in variables if name.startswith(f"{HEADS[network]}/")}


def _hf_name(name: str) -> str:
    if name == "generator_predictions/output_bias":
        return "generator_lm_head.bias"
    name = name.replace("discriminator_predictions/dense_1/", "discriminator_predictions/dense_prediction/")
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", name)
    name = re.sub(r"/(kernel|gamma)$", "/weight", name)
    name = re.sub(r"/beta$", "/bias", name)
    return re.sub(r"(_embeddings)$", r"\1/weight", name).replace("/", ".")


def _to_tensor(name: str, variable: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(variable.T if name.endswith("/kernel") else variable)
