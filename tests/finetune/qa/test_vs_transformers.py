"""An exported question-answering model gives the same answers in transformers on torch.

transformers has had no question-answering pipeline since its version 5: this file contains the code that a user
writes instead, with the windows of its tokenizer.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import random

import jax
import numpy as np
import pytest
import quick

from electramed_jax.common.tree_rules import map_named
from electramed_jax.config.pretrain import ModelConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa import windows as spans
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.qa.windows import WindowConfig
from electramed_jax.finetune.task.task import SPAN_HEAD
from electramed_jax.finetune.training import model as models
from electramed_jax.hf import finetuned
from electramed_jax.hf.card import CardData
from electramed_jax.model import masking

pytestmark = pytest.mark.slow

WANTED = "the parity tests compare with transformers on torch: install electramed_jax[parity]"
torch = pytest.importorskip("torch", reason=WANTED)
transformers = pytest.importorskip("transformers", reason=WANTED)

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789β"
TOKENS = [*vocab.SPECIAL_TOKENS, *LETTERS, *(f"##{x}" for x in LETTERS), *"()-.?"]
TOKENS += ["kinase", "inhibit", "##or", "the", "aspirin", "cyclooxygenase"]
MODEL = ModelConfig(
    vocab_size=len(TOKENS),
    max_positions=48,
    embedding_size=12,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    intermediate_size=20,
    dropout=0.0,
    attention_dropout=0.0,
)
WINDOWING = WindowConfig(max_seq_length=40, doc_stride=10, max_query_length=16)


def random_questions(count: int) -> list[Question]:
    rng = random.Random(7)
    words = ["Kinase", "inhibitors", "the", "β-Catenin", "(p53)", "naïve", "\u2003", "BCR-ABL."]
    return [
        Question(str(n), f"the {rng.choice(words)}?", " ".join(rng.choices(words, k=rng.randrange(2, 30))) + " kinase")
        for n in range(count)
    ]


def in_transformers(folder, questions: list[Question]):
    """Of each question: its windows' ids and float[n, 2] logits, and each text it offers with its score, best first."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    assert type(model).__name__ == "ElectraForQuestionAnswering"
    for question in questions:
        query_length = len(tokenizer(question.text, add_special_tokens=False)["input_ids"])
        inputs = tokenizer(
            question.text,
            question.context,
            truncation="only_second",
            max_length=WINDOWING.max_seq_length,
            stride=WINDOWING.max_seq_length - query_length - 3 - WINDOWING.doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        offsets = inputs.pop("offset_mapping").tolist()
        inputs.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            outputs = model(**inputs)
        logits = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1).numpy()
        windows, found = [], {}
        for w, (encoding, pairs) in enumerate(zip(inputs.encodings, offsets, strict=True)):
            passage = [place for place, part in enumerate(encoding.sequence_ids) if part == 1]
            for i, j in itertools.product(passage, passage):
                if i <= j < i + nbest.MAX_ANSWER_LENGTH:
                    text = question.context[pairs[i][0] : pairs[j][1]]
                    found[text] = max(float(logits[w, i, 0] + logits[w, j, 1]), found.get(text, -np.inf))
            length = sum(encoding.attention_mask)
            windows.append((encoding.ids[:length], logits[w, :length]))
        yield windows, sorted(found.items(), key=lambda entry: -entry[1])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_tokens(TOKENS, lower_case=True)


@pytest.fixture(scope="module")
def params() -> dict:
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: models.init_params(MODEL, SPAN_HEAD, jax.random.key(0)))
    return map_named(lambda name, leaf: np.float32(rng.normal(size=leaf.shape) / 2 + name.endswith("scale")), shapes)


@pytest.fixture(scope="module")
def folder(params, tokenizer, tmp_path_factory) -> str:
    """The model exported."""
    path = str(tmp_path_factory.mktemp("exported"))
    finetuned.export_finetuned(
        path,
        params,
        MODEL,
        tokenizer,
        kind=SPAN_HEAD.kind,
        labels=SPAN_HEAD.labels,
        loss=SPAN_HEAD.loss,
        postprocess={},
        card_data=CardData("invented", {}, {}, {}),
    )
    return path


def answers_here(params, tokenizer: Tokenizer, questions: list[Question]):
    """Windows, their logits, and the answers of each question."""
    windows, _ = spans.make_windows(questions, tokenizer, WINDOWING)
    special = SpecialIds(**dataclasses.asdict(tokenizer.special))
    ids = np.full((len(windows), WINDOWING.max_seq_length), special.pad, np.int32)
    for row, window in zip(ids, windows, strict=True):
        row[: len(window.input_ids)] = window.input_ids

    def forward(params, ids):
        return models.merge_params(MODEL, SPAN_HEAD, params).logits(ids, masking.packed_segments(ids, special))

    logits = np.asarray(quick.jit(forward)(params, ids))
    return windows, logits, nbest.answer_questions(questions, windows, logits)


def test_an_exported_model_answers_in_transformers_as_here(params, tokenizer, folder):
    questions = random_questions(12)
    windows, logits, answers = answers_here(params, tokenizer, questions)
    assert len(windows) > 2 * len(questions)
    alone = 0
    for number, (their_windows, theirs) in enumerate(in_transformers(folder, questions)):
        ours = [place for place, window in enumerate(windows) if window.question == number]
        for place, (their_ids, their_logits) in zip(ours, their_windows, strict=True):
            assert windows[place].input_ids.tolist() == their_ids
            np.testing.assert_allclose(logits[place, : len(their_ids)], their_logits, atol=1e-4)
        if len(ours) == 1:  # of several, a start counts here only where its piece has the most context
            alone += 1
            best = answers[number].candidates[:5]
            assert [candidate.text for candidate in best] == [text for text, _ in theirs[:5]]
            np.testing.assert_allclose([c.score for c in best], [score for _, score in theirs[:5]], atol=1e-4)
    assert alone > 2


def test_the_example_on_the_card_gives_the_answer_given_here(params, tokenizer, folder):
    card = pathlib.Path(folder, "README.md").read_text()
    found: dict = {}
    exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", folder), found)
    question = Question("1", found["question"], found["passage"])
    _, _, (answers,) = answers_here(params, tokenizer, [question])
    assert found["answer"] == answers.text() != ""
