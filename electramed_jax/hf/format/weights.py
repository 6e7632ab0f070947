"""Reads the tensors of a Hugging Face folder: safetensors or a torch state dict, one file or several with an index.

A pickle can run code when it is opened. Files of torch are opened with weights_only=True, which builds tensors and
plain containers and refuses everything else.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypedDict

import ml_dtypes
import numpy as np

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import files

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"  # suffix of the index of several files: {tensor: file}
Tensors = dict[str, np.ndarray]


class WeightIndex(TypedDict):
    """The index of several files: {tensor: name of its file}."""

    weight_map: dict[str, str]


# Names of dtypes in the header, all little-endian: https://huggingface.co/docs/safetensors
SAFETENSORS_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


def read_tensors(folder: str) -> Tensors:
    """Returns all tensors by name, in the dtype in which they are stored. safetensors is preferred to torch's format.

    Raises:
      UserError: there are no weights, they are damaged, or they are a pickle with more than tensors.
    """
    for name, load in ((SAFETENSORS, _read_safetensors), (TORCH, _read_torch)):
        path = files.join(folder, name)
        if files.exists(path):
            return load(path)
        if files.exists(path + INDEX):
            return _read_sharded(folder, path + INDEX, load)
    raise UserError(
        f"{folder}: no weights; wanted {SAFETENSORS} or {TORCH}, or their {INDEX.lstrip('.')}; convert a checkpoint "
        "of TensorFlow with electramed import --converted"
    )


def _read_sharded(folder: str, index_path: str, load: Callable[[str], Tensors]) -> Tensors:
    file_of = files.read_json(index_path, WeightIndex, advice="download it again")["weight_map"]
    outside = [name for name in file_of.values() if "/" in name or "\\" in name or name.startswith(".")]
    if outside:
        raise UserError(
            f"{index_path}: names {outside[0]!r}; wanted the name of a file in the same folder; download it again"
        )
    tensors: Tensors = {}
    for name in sorted(set(file_of.values())):
        path = files.join(folder, name)
        if not files.exists(path):
            raise UserError(f"{path}: missing, but named by {index_path}; download the folder again")
        tensors |= load(path)
    missing = sorted(set(file_of) - set(tensors))
    if missing:
        raise UserError(f"{index_path}: names {missing[0]}, which is in no file; download the folder again")
    return tensors


def _read_safetensors(path: str) -> Tensors:
    from safetensors import SafetensorError, deserialize

    try:
        tensors = deserialize(files.read_bytes(path))
    except SafetensorError as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}); copy or download it again") from error
    for name, tensor in tensors:
        if tensor["dtype"] not in SAFETENSORS_DTYPES:
            raise UserError(
                f"{path}: {name} has dtype {tensor['dtype']}; wanted one of {', '.join(SAFETENSORS_DTYPES)}"
            )
    return {
        name: np.frombuffer(tensor["data"], SAFETENSORS_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in tensors
    }


def _read_torch(path: str) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: weights of torch, which is not installed; pip install 'electramed_jax[torch]', "
            f"or get {SAFETENSORS}"
        ) from error
    try:
        tensors = torch.load(io.BytesIO(files.read_bytes(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # not a zip, truncated, or a pickle with code: each raises another class
        reason = first_line(error)[:200]
        raise UserError(
            f"{path}: not a file of tensors only ({reason}); other pickles are not opened, because they can run code"
        ) from error
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise UserError(f"{path}: not a state dict of tensors by name; save model.state_dict()")
    return {name: (value.float() if value.is_floating_point() else value).numpy() for name, value in tensors.items()}
