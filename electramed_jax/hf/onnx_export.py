"""Writes model.onnx next to an exported fine-tuned model, and checks it with onnxruntime.

The graph is that of transformers' torch model, so that it is the exported weights that are checked, too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.hf import finetuned
from electramed_jax.hf.format import config_json
from electramed_jax.hf.format.mapping import SPAN

ONNX_FILE = "model.onnx"
TOLERANCE = 1e-4  # of logits
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_OPSET = 18  # the oldest that torch's exporter writes without a conversion
_CHECKED_SHAPES = ((1, 5), (3, 17))  # (batch, sequence), other than that of the export


def export_onnx(folder: str) -> float:
    """Writes model.onnx of a folder of `finetuned.export_finetuned`; returns the largest difference of its logits.

    Inputs: `INPUTS`, int64[batch, sequence]; outputs: logits, or start_logits and end_logits. Both axes are dynamic.

    Raises:
      UserError: torch, transformers, onnx or onnxruntime is missing, the folder is remote, or the logits of onnxruntime
        differ from those of torch by more than `TOLERANCE`.
    """
    try:
        import onnx  # noqa: F401  # used by torch.onnx
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        raise UserError(f"--onnx: {error.name} is not installed; pip install 'electramed_jax[onnx]'") from error
    if not os.path.isdir(folder):
        raise UserError(f"--onnx: {folder} is remote; export to a local folder and copy it")
    exported = finetuned.load_finetuned(folder)
    network = getattr(transformers, config_json.CLASSES[exported.kind]).from_pretrained(folder).eval()
    outputs = ["start_logits", "end_logits"] if exported.kind == SPAN else ["logits"]
    path = files.join(folder, ONNX_FILE)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", max=exported.model.max_positions)}
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            network,
            tuple(torch.tensor(array) for array in _inputs(2, 8, exported.model.vocab_size).values()),
            path,
            dynamo=True,
            dynamic_shapes=[axes] * len(INPUTS),
            external_data=False,
            input_names=list(INPUTS),
            output_names=outputs,
            opset_version=_OPSET,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = 0.0
    for batch, length in _CHECKED_SHAPES:
        inputs = _inputs(batch, min(length, exported.model.max_positions), exported.model.vocab_size)
        with torch.no_grad():
            wanted = network(**{name: torch.tensor(array) for name, array in inputs.items()})
        for name, found in zip(outputs, session.run(outputs, inputs), strict=True):
            kept = inputs["attention_mask"].astype(bool) if found.ndim > 1 and found.shape[1] == length else ...
            largest = max(largest, float(np.abs(found - wanted[name].numpy())[kept].max()))
    if largest > TOLERANCE:
        files.remove(path)
        raise UserError(
            f"{path}: its logits differ from those of torch by up to {largest:.2g}, more than {TOLERANCE:g}; not kept; "
            "use other versions of torch and onnxruntime"
        )
    return largest


def _inputs(batch: int, length: int, vocab_size: int) -> dict[str, Any]:
    """Returns random inputs; the last row of several is padded to half."""
    generator = np.random.default_rng(0)
    mask = np.ones((batch, length), np.int64)
    if batch > 1:
        mask[-1, length // 2 :] = 0
    kinds = np.broadcast_to(np.arange(length) >= length // 3, (batch, length)).astype(np.int64)
    return dict(zip(INPUTS, (generator.integers(0, vocab_size, (batch, length)), mask, kinds), strict=True))


@contextlib.contextmanager
def _quiet() -> Any:
    """Silences the exporter's progress, its warnings about packages that ELECTRA does not need, and its logs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
