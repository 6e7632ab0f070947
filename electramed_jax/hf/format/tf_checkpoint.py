"""Checkpoints of google-research/electra (TensorFlow 1), as released: their variables under Hugging Face's names.

Variables are named as in google-research/electra, the encoders "electra" (the discriminator's, with the embeddings that
both share) and "generator", whose missing parts are the discriminator's. A dense kernel is [in, out], as ours; Hugging
Face's is [out, in].
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR, Sizes

INDEX, STATE = ".index", "checkpoint"  # of a checkpoint PREFIX; the file that names a folder's newest
NOT_WEIGHTS = re.compile(r"(.*/)?(adam_[mv]|global_step|Adam(_1)?|beta[12]_power)$")  # of the optimiser
HEADS = {DISCRIMINATOR: "discriminator_predictions", GENERATOR: "generator_predictions"}
HEAD_SIZE = 64  # google-research/electra util/training_utils.py:109; a narrower encoder has one head

Variables = Mapping[str, np.ndarray]


def find_checkpoint(path: str) -> str | None:
    """The checkpoint's prefix, where `path` is one or a folder with one; None where it is neither.

    Raises:
      UserError: a folder with several, none of which its file `checkpoint` names.
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
            f"{path}: several checkpoints ({', '.join(sorted(names))}); name one: --input={path}/{names[0]}"
        )
    return files.join(path, names[0]) if names else None


def read_variables(prefix: str) -> dict[str, np.ndarray]:
    """Variables by name, the optimiser's left out.

    Raises:
      UserError: TensorFlow is not there, or cannot read the checkpoint.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # what it has to say of the machine's processor
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(f"{prefix}: TensorFlow's checkpoint; pip install 'electramed_jax[tf]' to read it") from error
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = reader.get_variable_to_shape_map()
        return {name: reader.get_tensor(name) for name in sorted(names) if not NOT_WEIGHTS.fullmatch(name)}
    except Exception as error:  # of TensorFlow's own kinds, and plain ones
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{prefix}: cannot be read as a checkpoint ({reason}); download it again") from error


def to_hf_tensors(variables: Variables) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """(Hugging Face's tensors by network, variables that neither has)."""
    found, used = {}, set()
    for network, head in HEADS.items():
        names = _hf_names(variables, network)
        if any(name.startswith(head) for name in names.values()):
            found[network] = {theirs: _to_tensor(name, variables[name]) for theirs, name in names.items()}
            used |= set(names.values())
    return found, sorted(set(variables) - used)


def infer_sizes(tensors: Mapping[str, np.ndarray], num_heads: int | None = None) -> Sizes:
    """Read off the shapes; the number of heads, which no shape tells, by ELECTRA's rule unless it is given."""
    word = tensors["electra.embeddings.word_embeddings.weight"]
    up = tensors["electra.encoder.layer.0.intermediate.dense.weight"]
    layers = {found[1] for name in tensors if (found := re.match(r"electra\.encoder\.layer\.(\d+)\.", name))}
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
    """Variables of a network by Hugging Face's names; a generator's own go before the discriminator's."""
    scopes = ("electra/", "generator/") if network == GENERATOR else ("electra/",)
    own_encoder = any(name.startswith("generator/encoder/") for name in variables)
    found = {}
    for scope in scopes:
        for name in variables:
            inner = name.removeprefix(scope)
            shared = inner.startswith("embeddings/") or not own_encoder
            if name.startswith(scope) and (network == DISCRIMINATOR or scope == "generator/" or shared):
                found[_hf_name(f"electra/{inner}")] = name
    return found | {_hf_name(name): name for name in variables if name.startswith(f"{HEADS[network]}/")}


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
