"""model.onnx computes the logits of the model that was exported."""

from __future__ import annotations

import numpy as np
import pytest
from test_finetuned import Exported, encoded

from electramed_jax.common.errors import UserError
from electramed_jax.hf import onnx_export

onnxruntime = pytest.importorskip("onnxruntime", reason="install electramed_jax[parity]")
pytest.importorskip("onnxscript", reason="install electramed_jax[parity]")
pytestmark = [pytest.mark.slow, pytest.mark.oracle]


def test_onnxruntime_computes_our_logits(tmp_path, monkeypatch):
    exported = Exported("class", str(tmp_path / "model"))
    assert onnx_export.export_onnx(exported.folder) < 1e-5
    session = onnxruntime.InferenceSession(f"{exported.folder}/model.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([encoded(exported.tokenizer, "the dose of @DRUG$ in patients", "of the")], np.int64)
    kinds = (np.cumsum(ids == exported.tokenizer.special.sep, axis=1) - (ids == exported.tokenizer.special.sep)) > 0
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": kinds.astype(np.int64)}
    (logits,) = session.run(["logits"], inputs)
    np.testing.assert_allclose(logits[0], exported.logits(ids)[0, 0], atol=1e-4)
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="its logits differ from those of torch by up to"):
        onnx_export.export_onnx(exported.folder)
    assert not (tmp_path / "model/model.onnx").exists(), "a graph that differs is not kept"
