"""Each entity of a text of any length is predicted once, whatever its windows."""

from __future__ import annotations

import random
import re

import jax
import numpy as np
import pytest
from invented_corpus import DISEASES, DRUGS, OTHER, TOKENS, tiny_init_encoder

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.predictor import LoadedModel, Predictor
from electramed_jax.finetune.task.task import Head
from electramed_jax.finetune.training import model
from electramed_jax.hf.format.mapping import TOKEN

pytestmark = pytest.mark.slow

HEAD = Head(TOKEN, ("O", "B-Disease", "I-Disease", "B-Drug", "I-Drug"))
# Tags that a perfect model predicts at the first word piece.
TAGS = dict.fromkeys(("at", "met", "tim"), "B-Drug") | {"acute": "B-Disease"}
TAGS |= dict.fromkeys(("gast", "arth", "neph"), "I-Disease")


class Perfect(Predictor):
    """Its logits depend on the word piece only. Windows and their joining are the real code."""

    def logits(self, input_ids):
        assert max(len(ids) for ids in input_ids) <= self.model.postprocess.max_seq_length
        wanted = [[HEAD.labels.index(TAGS.get(TOKENS[number], "O")) for number in ids] for ids in input_ids]
        return [10 * np.eye(HEAD.size, dtype=np.float32)[row] for row in wanted]


def made(kind: type[Predictor], max_length: int, **sizes) -> Predictor:
    config = tiny_init_encoder(dropout=0.0, **sizes).model
    params = jax.tree.map(np.asarray, model.init_params(config, HEAD, jax.random.key(3)))
    return kind(
        LoadedModel(
            "a test", config, HEAD, Tokenizer.from_tokens(TOKENS, True), params, PostprocessConfig("ner", max_length)
        ),
        8,
    )


def text_of(words: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice([*DRUGS, *(f"Acute {name}" for name in DISEASES), *OTHER]) for _ in range(words))


@pytest.mark.parametrize("max_length", [8, 11, 32])
def test_no_entity_is_lost_or_doubled(max_length):
    texts = [text_of(words, words) for words in (0, 1, 5, 40, 400)]
    for text, found in zip(texts, made(Perfect, max_length).entities(texts), strict=True):
        wanted = [match.span() for match in re.finditer(r"\w+ol\b|Acute \w+", text)]
        assert [(one.start, one.stop) for one in found] == wanted
        assert {one.type for one in found} <= {"Drug", "Disease"} and all(one.confidence > 0.99 for one in found)


def test_an_answer_does_not_depend_on_other_texts_or_on_the_batch():
    texts = [text_of(words, words) for words in (3, 60, 9, 21)]
    real = made(Predictor, 16)
    together = real.entities(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = made(Predictor, 16).entities([text])
        assert [one[:3] for one in alone] == [one[:3] for one in found]
        assert [one.confidence for one in alone] == pytest.approx([one.confidence for one in found], abs=1e-5)
    assert sum(map(len, together)) > 5


def test_a_text_of_nothing_has_no_entity():
    assert made(Predictor, 16).entities(["", "  \n", "\u200b"]) == [[], [], []]
    assert made(Predictor, 16).entities([]) == []
