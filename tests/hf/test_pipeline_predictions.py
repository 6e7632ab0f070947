"""Predictions of `electramed predict` with an exported model equal those of transformers' pipelines."""

from __future__ import annotations

import random

import pytest
from exported import HEADS, LENGTH, exported
from invented_corpus import DISEASES, DRUGS, OTHER

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.predictor import Predictor, load_model
from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa import windows as spans
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.text_classification.tables import Record

WANTED = "the parity tests compare with transformers on torch: install electramed_jax[parity]"
torch = pytest.importorskip("torch", reason=WANTED)
transformers = pytest.importorskip("transformers", reason=WANTED)

TOLERANCE = 1e-4
PAIR = ("The dose of @DRUG$, treated with metoprolol.", "of patients in (atenolol)")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return {kind: exported(str(tmp_path_factory.mktemp(kind) / "model"), kind) for kind in HEADS}


def predictor(folder: str) -> Predictor:
    return Predictor(load_model(folder, None), batch_rows=8)


def sentence(draw: random.Random, words: int) -> str:
    chosen = draw.choices(
        [*DRUGS, *DISEASES, *OTHER, "Atenolol,", "(acute", "gastritis)", "strange-word", "é"], k=words
    )
    return " ".join(chosen) + "."


@pytest.mark.parametrize("kind", HEADS)
def test_an_exported_model_is_read_back(folders, kind):
    read = load_model(folders[kind], None)
    assert (read.head, read.tokenizer.never_split) == (HEADS[kind], ("@DRUG$",))
    assert read.postprocess == PostprocessConfig(kind, LENGTH, max_query_length=8, doc_stride=16)


@pytest.mark.slow
def test_entities_equal_those_of_the_token_classification_pipeline(folders):
    """With aggregation_strategy="first": a word has the label of its first piece."""
    pipeline = transformers.pipeline("token-classification", model=folders["ner"], aggregation_strategy="first")
    draw = random.Random(0)
    texts = [sentence(draw, words) for words in (1, 4, 9, 12)] + ["Acute\tgastritis\n\nof  the (atenolol)?", "..."]
    count = 0
    for text, ours in zip(texts, predictor(folders["ner"]).entities(texts), strict=True):
        theirs = [(e["start"], e["end"], e["entity_group"]) for e in pipeline(text)]
        assert [(e.start, e.stop, e.type) for e in ours] == theirs
        assert [e.confidence for e in ours] == pytest.approx([e["score"] for e in pipeline(text)], abs=TOLERANCE)
        count += len(ours)
    assert count > 5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relations", "multilabel", "similarity"])
def test_labels_equal_those_of_the_text_classification_pipeline(folders, kind):
    pipeline = transformers.pipeline("text-classification", model=folders[kind], tokenizer=folders[kind], top_k=None)
    records = [Record(PAIR[0], "", None, 1), Record(PAIR[0], PAIR[1], None, 2), Record(PAIR[1], "", None, 3)]
    inputs = [{"text": one.text, "text_pair": one.second} if one.second else one.text for one in records]
    for given, ours in zip(inputs, predictor(folders[kind]).labels(records), strict=True):
        found = pipeline(given)
        scores = {one["label"]: one["score"] for one in (found[0] if isinstance(found[0], list) else found)}
        if kind == "similarity":
            assert ours == {"score": pytest.approx(scores["score"], abs=TOLERANCE)}
            continue
        assert ours["probabilities"] == pytest.approx(scores, abs=TOLERANCE)
        if kind == "relations":
            best = max(scores, key=scores.get)
            assert (ours["label"], ours["probability"]) == (best, pytest.approx(scores[best], abs=TOLERANCE))
        else:
            assert ours["labels"] == [label for label in HEADS[kind].labels if scores[label] > 0.5]


def test_answers_equal_those_of_torch_logits_decoded_as_transformers_documents(folders):
    """transformers 5 has no pipeline for questions: takes the best pair of start and later end in one window."""
    opened = transformers.AutoModelForQuestionAnswering.from_pretrained(folders["qa"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["qa"])
    draw = random.Random(1)
    asked = [Question(f"q{n}", "the dose of acute ?", sentence(draw, 4 + n)) for n in range(4)]
    for question, ours in zip(asked, predictor(folders["qa"]).answers(asked), strict=True):
        inputs = tokenizer(question.text, question.context, return_tensors="pt", return_offsets_mapping=True)
        offsets, types = inputs.pop("offset_mapping")[0].tolist(), inputs["token_type_ids"][0].tolist()
        with torch.no_grad():
            found = opened(**inputs)
        first, last = types.index(1), len(types) - 2  # of the passage, which [SEP] follows
        begins, ends = found.start_logits[0].double(), found.end_logits[0].double()
        pairs = [(i, j) for i in range(first, last + 1) for j in range(i, min(last + 1, i + nbest.MAX_ANSWER_LENGTH))]
        i, j = max(pairs, key=lambda pair: begins[pair[0]] + ends[pair[1]])
        best = ours.candidates[0]
        assert (best.start, best.stop) == (offsets[i][0], offsets[j][1])
        assert best.score == pytest.approx(float(begins[i] + ends[j]), abs=TOLERANCE)
        assert ours.null_score == pytest.approx(float(begins[0] + ends[0]), abs=TOLERANCE)


def test_a_folder_that_transformers_saved_is_read(folders, tmp_path):
    for kind, auto in (("ner", "AutoModelForTokenClassification"), ("qa", "AutoModelForQuestionAnswering")):
        place = str(tmp_path / kind)
        getattr(transformers, auto).from_pretrained(folders[kind]).save_pretrained(place)
        transformers.AutoTokenizer.from_pretrained(folders[kind]).save_pretrained(place)
        read = load_model(place, None)
        wanted = load_model(folders[kind], None)
        assert read.head == wanted.head and read.postprocess == wanted.postprocess
        assert list(read.tokenizer.tokens) == list(wanted.tokenizer.tokens)


def test_folders_of_other_models_are_refused(folders, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_model(str(tmp_path / "nowhere"), None)
    with pytest.raises(UserError, match="no config.json"):
        load_model(str(tmp_path), None)
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    with pytest.raises(UserError, match="wanted that of a fine-tuned ELECTRA"):
        load_model(str(tmp_path), None)
    with pytest.raises(UserError, match="--seed does not apply"):
        load_model(folders["ner"], 3)


def test_windows_of_questions_equal_those_of_training(folders):
    """Stride and lengths of training are stored with the model."""
    read = load_model(folders["qa"], None)
    question = Question("q", "the dose ?", " ".join(OTHER * 12))
    windows, _ = spans.make_windows([question], read.tokenizer, read.postprocess.windowing)
    assert len(windows) > 4 and max(len(window.input_ids) for window in windows) == LENGTH
    assert read.postprocess.windowing == spans.WindowConfig(LENGTH, 16, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ner", "relations"])
def test_a_head_trained_by_torch_on_the_same_weights_predicts_the_same_here(folders, kind, tmp_path):
    """Three steps of torch's Adam on head and encoder, then an import through safetensors."""
    auto = transformers.AutoModelForTokenClassification if kind == "ner" else None
    opened = (auto or transformers.AutoModelForSequenceClassification).from_pretrained(folders[kind]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    text = "the dose of atenolol, treated with acute gastritis."
    inputs = tokenizer(text, return_tensors="pt")
    before = opened(**inputs).logits.detach().clone()
    optimizer = torch.optim.Adam(opened.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        logits = opened(**inputs).logits
        torch.nn.functional.cross_entropy(
            logits.flatten(0, -2), torch.ones(logits.shape[:-1].numel()).long()
        ).backward()
        optimizer.step()
    opened.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = opened(**inputs).logits[0].numpy()
    assert abs(wanted - before[0].numpy()).max() > 0.1
    (ours,) = predictor(str(tmp_path)).logits([inputs["input_ids"][0].numpy()])
    assert ours == pytest.approx(wanted, abs=TOLERANCE)
