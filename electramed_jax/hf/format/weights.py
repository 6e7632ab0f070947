"""Tensors of a Hugging Face folder: safetensors, or a state dict that torch saved; one file, or several with an index.

A pickle can run code when it is opened. torch's are opened by its restricted reader (weights_only), which builds
tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import ml_dtypes
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

SAFETENSORS, TORCH = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"  # of several files: which tensor is in which
Tensors = dict[str, np.ndarray]

# https://huggingface.co/docs/safetensors: names of types in the header, all little-endian.
SAFETENSORS_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
}


def read_tensors(folder: str) -> Tensors:
    """Every tensor by its name, in the type it is stored in; of two formats, safetensors.

    Raises:
      UserError: no weights, or damaged ones, or such as only a program can open.
    """
    for name, load in ((SAFETENSORS, _read_safetensors), (TORCH, _read_torch)):
        whole = files.join(folder, name)
        if files.exists(whole):
            return load(whole)
        if files.exists(whole + INDEX):
            return _read_sharded(folder, whole + INDEX, load)
    raise UserError(
        f"{folder}: no weights; wanted {SAFETENSORS} or {TORCH}, or their {INDEX.lstrip('.')}; a checkpoint of "
        "TensorFlow is converted by electramed import --converted"
    )


def _read_sharded(folder: str, index_path: str, load: Callable[[str], Tensors]) -> Tensors:
    index = files.read_json(index_path)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{index_path}: no weight_map; download it again")
    outside = [place for place in places.values() if "/" in place or "\\" in place or place.startswith(".")]
    if outside:
        raise UserError(f"{index_path}: names {outside[0]!r}, which is not a file beside it")
    tensors: Tensors = {}
    for place in sorted(set(places.values())):
        path = files.join(folder, place)
        if not files.exists(path):
            raise UserError(f"{path}: missing, and {index_path} names it; download the folder again")
        tensors |= load(path)
    lacking = sorted(set(places) - set(tensors))
    if lacking:
        raise UserError(f"{index_path}: names {lacking[0]}, which no file holds; download the folder again")
    return tensors


def _read_safetensors(path: str) -> Tensors:
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(files.read_bytes(path))
    except SafetensorError as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); copy or download it again") from error
    for name, tensor in found:
        if tensor["dtype"] not in SAFETENSORS_DTYPES:
            raise UserError(
                f"{path}: {name} is of type {tensor['dtype']}; wanted one of {', '.join(SAFETENSORS_DTYPES)}"
            )
    return {
        name: np.frombuffer(tensor["data"], SAFETENSORS_DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in found
    }


def _read_torch(path: str) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path}: weights of torch; pip install 'electramed_jax[torch]' to read them, or take {SAFETENSORS}"
        ) from error
    try:
        found = torch.load(io.BytesIO(files.read_bytes(path)), map_location="cpu", weights_only=True)
    except Exception as error:  # of several kinds: not a zip, cut off, or a program
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(f"{path}: no file of nothing but tensors ({reason}); it is not opened otherwise") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise UserError(f"{path}: no state dict, tensors by name; save model.state_dict()")
    return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in found.items()}
