"""transformers with torch opens exported fine-tuned models; logits and pipeline predictions are equal to ours."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
import quick
from invented_corpus import TOKENS, tiny_init_encoder

from electramed_jax.common import tree_rules
from electramed_jax.common.errors import UserError
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.task.task import SIGMOID, SOFTMAX, SQUARED, Head
from electramed_jax.finetune.training import model
from electramed_jax.hf import card, encoder, finetuned, onnx_export
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN
from electramed_jax.model import masking

WANTED = "the parity tests compare with transformers on torch: install electramed_jax[parity]"
torch = pytest.importorskip("torch", reason=WANTED)
transformers = pytest.importorskip("transformers", reason=WANTED)

TOLERANCE = 1e-4  # largest allowed difference of a float32 logit
CARD_DATA = card.CardData("a test", {}, {}, {})
VOCABULARY = tuple("@DRUG$" if token == "[unused0]" else token for token in TOKENS)
TEXT = "The dose of @DRUG$, treated with metoprolol"
HEADS = {
    "token": (Head(TOKEN, ("O", "B-Drug", "I-Drug")), "AutoModelForTokenClassification"),
    "class": (Head(SEQUENCE, ("a", "b", "c"), SOFTMAX), "AutoModelForSequenceClassification"),
    "labels": (Head(SEQUENCE, ("a", "b", "c"), SIGMOID), "AutoModelForSequenceClassification"),
    "number": (Head(SEQUENCE, ("score",), SQUARED), "AutoModelForSequenceClassification"),
    "span": (Head(SPAN, ("start", "end")), "AutoModelForQuestionAnswering"),
}
POOLED = {  # heads that transformers does not have
    pooling: Head(SEQUENCE, ("a", "b", "c"), SOFTMAX, pooling, (VOCABULARY.index("@DRUG$"),))
    for pooling in ("mentions", "pieces")
}
PROBLEMS = {"class": "single_label_classification", "labels": "multi_label_classification", "number": "regression"}


class Exported:
    """A model with random parameters, its exported folder and our logits."""

    def __init__(self, name: str, folder: str, keep_accents: bool = False):
        self.head, self.auto = (POOLED[name], "") if name in POOLED else HEADS[name]
        self.folder = folder
        self.config = tiny_init_encoder(VOCABULARY, dropout=0.0, max_positions=24).model
        self.tokenizer = Tokenizer.from_tokens(VOCABULARY, True, ("@DRUG$",), keep_accents=keep_accents)
        shapes = jax.eval_shape(lambda: model.init_params(self.config, self.head, jax.random.key(0)))
        rng = np.random.default_rng(3)
        self.params = tree_rules.map_named(
            lambda n, leaf: (0.4 * rng.normal(size=leaf.shape) + n.endswith("scale")).astype(np.float32), shapes
        )
        head = self.head
        finetuned.export_finetuned(
            folder,
            self.params,
            self.config,
            self.tokenizer,
            kind=head.kind,
            labels=head.labels,
            loss=head.loss,
            postprocess={},
            card_data=CARD_DATA,
            pooling=head.pooling,
            markers=head.markers,
        )

    def logits(self, ids: np.ndarray) -> np.ndarray:
        special = SpecialIds(**vars(self.tokenizer.special))

        def compute(params, ids):
            structure = masking.packed_segments(ids, special)
            return model.merge_params(self.config, self.head, params).logits(ids, structure)

        return np.asarray(quick.jit(compute)(self.params, np.int32(ids)))

    def opened(self):
        """The torch model, after a check that no tensor is missing or unexpected."""
        auto = getattr(transformers, self.auto)
        opened, report = auto.from_pretrained(self.folder, output_loading_info=True)
        assert {what: list(names) for what, names in report.items() if names} == {}
        return opened.eval()


@pytest.fixture(scope="module", params=HEADS)
def exported(request, tmp_path_factory) -> Exported:
    return Exported(request.param, str(tmp_path_factory.mktemp(request.param) / "model"))


def encoded(tokenizer: Tokenizer, *texts: str) -> list[int]:
    special = tokenizer.special
    ids = [special.cls]
    for one in tokenizer.encode_batch(texts):
        ids += [*one.tolist(), special.sep]
    return ids


@pytest.mark.slow
def test_logits_equal_those_of_torch(exported):
    ids = encoded(exported.tokenizer, TEXT, "of patients in")
    theirs = transformers.AutoTokenizer.from_pretrained(exported.folder)
    inputs = theirs(TEXT, "of patients in", return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == ids
    ours = exported.logits(np.array([ids]))[0]
    with torch.no_grad():
        outputs = exported.opened()(**inputs)
    if exported.head.kind == SPAN:
        wanted = np.stack([outputs.start_logits[0].numpy(), outputs.end_logits[0].numpy()], axis=-1)
    else:
        wanted = outputs.logits[0].numpy()
    ours = ours[0] if exported.head.kind == SEQUENCE else ours
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(ours, wanted, atol=TOLERANCE)


def test_config_json_has_the_labels_and_the_problem_type(exported):
    config = json.loads(pathlib.Path(exported.folder, "config.json").read_text(encoding="utf-8"))
    if exported.head.kind == SPAN:
        assert "id2label" not in config and config["architectures"] == ["ElectraForQuestionAnswering"]
        return
    assert config["id2label"] == {str(number): label for number, label in enumerate(exported.head.labels)}
    opened = exported.opened().config
    assert [opened.id2label[number] for number in range(exported.head.size)] == list(exported.head.labels)
    name = next(name for name, (head, _) in HEADS.items() if head == exported.head)
    if name in PROBLEMS:
        assert opened.problem_type == PROBLEMS[name]


@pytest.mark.slow
def test_pipelines_predict_what_our_logits_imply(exported):
    kind = exported.head.kind
    if kind == SPAN:  # transformers has no pipeline for questions from version 5 on
        return
    task = "token-classification" if kind == TOKEN else "text-classification"
    pipeline = transformers.pipeline(task, model=exported.folder, tokenizer=exported.folder)
    ids = encoded(exported.tokenizer, TEXT)
    logits = exported.logits(np.array([ids]))[0]
    labels = exported.head.labels
    if kind == TOKEN:
        found = {entity["index"]: entity["entity"] for entity in pipeline(TEXT)}
        wanted = {n: labels[best] for n, best in enumerate(logits.argmax(-1)) if best and 0 < n < len(ids) - 1}
        assert found == wanted and found
        return
    scores = {one["label"]: one["score"] for one in pipeline(TEXT, top_k=None)}
    cls = logits[0]
    wanted = cls if exported.head.loss == SQUARED else 1 / (1 + np.exp(-cls))
    if exported.head.loss == SOFTMAX:
        wanted = np.exp(cls) / np.exp(cls).sum()
    assert scores == pytest.approx(dict(zip(labels, wanted.tolist(), strict=True)), abs=TOLERANCE)


def test_a_model_that_keeps_accents_does_so_wherever_it_is_opened(tmp_path):
    folder = Exported("token", str(tmp_path), keep_accents=True).folder
    assert finetuned.load_finetuned(folder).tokenizer.keep_accents and encoder.load_encoder(folder).keep_accents
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs.backend_tokenizer.normalizer.normalize_str("É") == "é"


def test_the_encoder_of_each_model_and_of_a_bare_encoder_can_be_loaded(exported, tmp_path):
    loaded = encoder.load_encoder(exported.folder)
    original = {name.removeprefix("encoder/"): leaf for name, leaf in tree_rules.named_leaves(exported.params).items()}
    original = {name: leaf for name, leaf in original.items() if not name.startswith("head/")}
    assert loaded.leaves.keys() == original.keys()
    for name, leaf in loaded.leaves.items():
        rows = len(VOCABULARY) if name == "embeddings/word" else len(leaf)  # without padding
        np.testing.assert_array_equal(leaf[:rows], original[name][:rows], err_msg=name)
    assert tuple(loaded.tokens) == VOCABULARY and loaded.lower_case
    if exported.head.kind == TOKEN:
        bare = transformers.AutoModel.from_pretrained(exported.folder)
        bare.save_pretrained(tmp_path)
        exported.tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
        for name, leaf in encoder.load_encoder(str(tmp_path)).leaves.items():
            np.testing.assert_array_equal(leaf, loaded.leaves[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["token", "class", "span", *POOLED])
def test_onnxruntime_computes_our_logits(name, tmp_path):
    """Compares a batch of texts with two placeholders, one and none, padded to the longest."""
    onnxruntime = pytest.importorskip("onnxruntime", reason=WANTED)
    pytest.importorskip("onnxscript", reason=WANTED)
    exported = Exported(name, str(tmp_path / "model"))
    assert onnx_export.export_onnx(exported.folder) < 1e-5
    session = onnxruntime.InferenceSession(f"{exported.folder}/model.onnx", providers=["CPUExecutionProvider"])
    pairs = [("the dose of @DRUG$ in patients with @DRUG$ of", "of the"), ("of @DRUG$", "in the dose"), ("the", "of")]
    rows = [encoded(exported.tokenizer, *pair) for pair in pairs]
    ids = np.full((len(rows), max(map(len, rows))), exported.tokenizer.special.pad, np.int64)
    for row, own in enumerate(rows):
        ids[row, : len(own)] = own
    mask = (ids != exported.tokenizer.special.pad).astype(np.int64)
    kinds = (np.cumsum(ids == exported.tokenizer.special.sep, axis=1) - (ids == exported.tokenizer.special.sep)) > 0
    inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds.astype(np.int64) * mask}
    found = session.run(None, inputs)
    for row, own in enumerate(rows):
        ours = exported.logits(np.array([own]))[0]
        theirs = np.stack(found, axis=-1) if exported.head.kind == SPAN else found[0]
        if exported.head.kind == SEQUENCE:
            np.testing.assert_allclose(theirs[row], ours[0], atol=TOLERANCE)
        else:
            np.testing.assert_allclose(theirs[row, : len(own)], ours, atol=TOLERANCE)


@pytest.mark.slow
def test_a_graph_that_differs_from_torch_is_not_kept(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason=WANTED)
    exported = Exported("class", str(tmp_path / "model"))
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="its logits differ from those of torch by up to"):
        onnx_export.export_onnx(exported.folder)
    assert not (tmp_path / "model/model.onnx").exists()


@pytest.mark.parametrize("pooling", POOLED)
def test_a_folder_with_a_pooling_is_read_here_and_refused_by_transformers(pooling, tmp_path):
    exported = Exported(pooling, str(tmp_path / "model"))
    loaded = finetuned.load_finetuned(exported.folder)
    assert (loaded.pooling, loaded.markers) == (pooling, exported.head.markers)
    np.testing.assert_array_equal(loaded.params["head"]["dense"]["kernel"], exported.params["head"]["dense"]["kernel"])
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.AutoModelForSequenceClassification.from_pretrained(exported.folder)
    config = tmp_path / "model/config.json"
    config.write_text(config.read_text(encoding="utf-8").replace("@DRUG$", "@OTHER$"), encoding="utf-8")
    with pytest.raises(UserError, match=r"electramed_pooling looks for @OTHER\$, which vocab.txt does not have"):
        finetuned.load_finetuned(exported.folder)
