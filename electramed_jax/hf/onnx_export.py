"""Writes model.onnx next to an exported fine-tuned model, and checks it with onnxruntime.

The graph is that of transformers' torch model, so that it is the exported weights that are checked, too. A pooling that
transformers does not have is added to it, see `_torch_model`.
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
from electramed_jax.config.finetune import CLS, MENTIONS, POOLED_VECTORS
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
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"--onnx: {error.name} is not installed; pip install 'electramed_jax[onnx]'") from error
    if not os.path.isdir(folder):
        raise UserError(f"--onnx: {folder} is remote; export to a local folder and copy it")
    exported = finetuned.load_finetuned(folder)
    network = _torch_model(folder, exported).eval()
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


def _torch_model(folder: str, exported: finetuned.FinetunedModel) -> Any:
    """Returns the torch model of a folder: that of transformers, with a wider head if the folder has a pooling."""
    import torch
    import transformers

    architecture = getattr(transformers, config_json.CLASSES[exported.kind])
    if exported.pooling == CLS:
        return architecture.from_pretrained(folder)
    network = architecture(transformers.AutoConfig.from_pretrained(folder))
    width = exported.model.hidden_size
    network.classifier.dense = torch.nn.Linear(width * POOLED_VECTORS[exported.pooling], width)
    tensors = finetuned.to_state_dict(
        exported.params, exported.model, exported.kind, len(exported.labels), exported.pooling
    )
    network.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
    markers = torch.tensor(exported.markers)

    class Pooled(torch.nn.Module):
        """The encoder, the means over the parts of each text, and the head; `finetune.training.pooling` in torch."""

        def __init__(self) -> None:
            super().__init__()
            self.electra, self.classifier = network.electra, network.classifier

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> dict[str, Any]:
            hidden = self.electra(input_ids, attention_mask, token_type_ids)[0]
            is_token = attention_mask.bool()
            is_marker = (input_ids[..., None] == markers).any(-1) & is_token
            count = is_marker.long().cumsum(1)
            total = is_marker.long().sum(1, keepdim=True)
            if exported.pooling == MENTIONS:
                parts = [is_marker & (count == 1), is_marker & (count == total)]
            else:
                place = is_token.long().cumsum(1)
                is_word = is_token & ~is_marker & (place > 1) & (place < is_token.long().sum(1, keepdim=True))
                before, after = count == 0, (count > 0) & (count == total)
                parts = [is_word & before, is_word & ~before & ~after, is_word & after]
            vectors = [hidden[:, 0]]
            for part in parts:
                weights = part.to(hidden.dtype)
                vectors.append((weights[..., None] * hidden).sum(1) / weights.sum(1, keepdim=True).clamp(min=1.0))
            return {"logits": self.classifier(torch.cat(vectors, -1)[:, None])}

    return Pooled()


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
