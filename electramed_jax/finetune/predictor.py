"""A fine-tuned model that answers: texts, rows or questions in, what it makes of them out.

The decoding is that of the scores (`words`, `text_answers`, `nbest`, `bioasq`): what is measured is what is predicted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from electramed_jax.common.rounding import round_up
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import MeshConfig, ModelConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.ner import tags, word_windows
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa import windows as spans
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SPAN, SQUARED, TOKEN, Examples, Head, Outputs
from electramed_jax.finetune.text_classification import inputs
from electramed_jax.finetune.text_classification import labels as text_answers
from electramed_jax.finetune.text_classification.tables import Record
from electramed_jax.finetune.training import batches, predict_logits
from electramed_jax.finetune.training.step import TrainSpec, jit_predict_step
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class Model:
    """What there is to know of a fine-tuned model; parameters on the host."""

    source: str
    sizes: ModelConfig
    head: Head
    tokenizer: Tokenizer
    params: Params
    decoding: PostprocessConfig


class Predictor:
    """A model on the devices of this process. Methods may be called any number of times; one program is compiled."""

    def __init__(self, model: Model, batch_rows: int):
        """`batch_rows`: of `decoding.max_seq_length` tokens, each filled with as many examples as it takes."""
        self.model = model
        sizes = dataclasses.replace(model.sizes, dropout=0.0, attention_dropout=0.0)
        special = model.tokenizer.special
        self._recipe = TrainSpec(sizes, model.head, special, FinetuneOptimizerConfig(), 1)
        self._mesh = sharding.make_mesh(MeshConfig(), jax.local_devices())
        abstract = self._recipe.abstract_state(self._mesh).params
        self._params = jax.device_put(model.params, state_lib.get_shardings(abstract))
        self._step = jit_predict_step(self._recipe, self._mesh)
        self._batch_rows, self._rows = batch_rows, 0

    def entities(self, texts: Sequence[str]) -> list[list[EntitySpan]]:
        """The entities of each text, in order; a text may be of any length."""
        found = [self._words(*encoded) for encoded in self.model.tokenizer.encode_with_offsets(texts)]
        made = word_windows.examples([of_words for of_words, _ in found], self._length, self._recipe.special)
        outputs = self.logits([example.input_ids for example in made])
        logits = word_windows.logits(made, outputs, [len(of_words) for of_words, _ in found])
        return [self._entities(places, of_text) for (_, places), of_text in zip(found, logits, strict=True)]

    def labels(self, records: Sequence[Record]) -> list[dict[str, Any]]:
        """{"label", "probability", "probabilities"} of each text or pair; of several labels "labels" and
        "probabilities"; of a similarity "score". "cut": true where the text was too long and lost a part."""
        names = inputs.names_in(records)
        made = inputs.make(records, names, self.model.tokenizer, self._length)
        if not records:
            return []
        head, logits = self.model.head, np.stack(self.logits(made.input_ids))
        answers = text_answers.predicted_labels(logits, head, self.model.decoding.threshold)
        probabilities = text_answers.probabilities(logits, head).tolist()
        found = []
        for answer, row, is_cut in zip(answers, probabilities, made.cut, strict=True):
            of_labels = dict(zip(head.labels, row, strict=True))
            if head.loss == SQUARED:
                said = {"score": answer}
            elif head.loss == SIGMOID:
                said = {"labels": answer, "probabilities": of_labels}
            else:
                said = {"label": answer, "probability": of_labels[answer], "probabilities": of_labels}
            found.append(said | ({"cut": True} if is_cut else {}))
        return found

    def answers(self, questions: Sequence[Question]) -> list[Answers]:
        """What the model offers to each question about its passage, which may be of any length."""
        windows, _ = spans.windows(questions, self.model.tokenizer, self.model.decoding.windowing)
        outputs = self.logits([window.input_ids for window in windows])
        return nbest.of_questions(questions, windows, outputs, self.model.decoding.max_answer_length)

    @property
    def _length(self) -> int:
        return self.model.decoding.max_seq_length

    def logits(self, input_ids: Sequence[np.ndarray]) -> Outputs:
        """Of examples, each with [CLS] and [SEP] and no longer than a window; see `task.Outputs`."""
        if not input_ids:
            return []
        examples = Examples(input_ids, [_no_label(self.model.head, len(ids)) for ids in input_ids])
        if not self._rows:  # a first call with little in it is likely the only one
            needed = 1 + max(row for row, _ in batches.pack([len(ids) for ids in input_ids], self._length))
            self._rows = round_up(min(self._batch_rows, needed), self._mesh.size)
        with jax.set_mesh(self._mesh):
            outputs = predict_logits.outputs(
                self._step, self._params, examples, self._recipe, self._mesh, rows=self._rows, row_length=self._length
            )
        assert outputs is not None
        return outputs

    def _words(self, ids: np.ndarray, offsets: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
        """The pieces of each word, and int[words, 2], the characters it stands at.

        A word is what stands between white space and punctuation marks, each of which is one, too: BERT's words, and
        those of Hugging Face's pipelines.
        """
        of_words: list[list[int]] = []
        places: list[list[int]] = []
        for number, (start, stop) in zip(ids.tolist(), offsets.tolist(), strict=True):
            if of_words and self.model.tokenizer.tokens[number].startswith("##"):
                of_words[-1].append(number)
                places[-1][1] = stop
            else:
                of_words.append([number])
                places.append([start, stop])
        return of_words, np.array(places, np.int64).reshape(-1, 2)

    def _entities(self, places: np.ndarray, logits: np.ndarray) -> list[EntitySpan]:
        if not len(places):
            return []
        probabilities = text_answers.probabilities(logits, self.model.head)
        best = logits.argmax(axis=-1)
        labels = [self.model.head.labels[number] for number in best]
        sure = probabilities[np.arange(len(best)), best]
        return [
            EntitySpan(int(places[start, 0]), int(places[stop - 1, 1]), kind, float(sure[start:stop].mean()))
            for start, stop, kind in tags.decode(labels)
        ]


def _no_label(head: Head, length: int) -> np.ndarray:
    if head.kind == TOKEN:
        return np.full(length, IGNORE, np.int32)
    return np.zeros(2, np.int32) if head.kind == SPAN else np.array(IGNORE, np.int32)
