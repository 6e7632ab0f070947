"""Predictions of a fine-tuned model: entities of texts, labels of records, answers to questions.

Predictions are computed from logits by the code that computes the scores, so that the scores hold for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.rounding import round_up
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.pretrain import MeshConfig, ModelConfig
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import postprocess_config
from electramed_jax.finetune.load_model import load_finetuned
from electramed_jax.finetune.ner import tags, word_windows
from electramed_jax.finetune.ner import words as word_lib
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.postprocess_config import PostprocessConfig
from electramed_jax.finetune.qa import nbest
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.qa.windows import make_windows
from electramed_jax.finetune.task.task import IGNORE, SIGMOID, SQUARED, Examples, Head, Outputs
from electramed_jax.finetune.text_classification import inputs
from electramed_jax.finetune.text_classification.labels import compute_probabilities, predicted_labels
from electramed_jax.finetune.text_classification.tables import Record
from electramed_jax.finetune.training import batches, workdir
from electramed_jax.finetune.training.predict_logits import predict_logits
from electramed_jax.finetune.training.step import TrainSpec, jit_predict_step
from electramed_jax.hf import finetuned
from electramed_jax.hf.format.mapping import SPAN, TOKEN
from electramed_jax.pretrain.workdir import DATASET_FILE
from electramed_jax.training import sharding
from electramed_jax.training import state as state_lib
from electramed_jax.training.state import Params


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A fine-tuned model on the host.

    Attributes:
      source: its folder, for messages and outputs.
      config: sizes and numerics of the encoder.
      params: {"embeddings", "encoder", "head"}, float32 numpy.
    """

    source: str
    config: ModelConfig
    head: Head
    tokenizer: Tokenizer
    params: Params
    postprocess: PostprocessConfig


def load_model(folder: str, seed: int | None) -> LoadedModel:
    """Loads the model of a workdir of electramed finetune or of a Hugging Face folder.

    Args:
      folder: the workdir or the folder.
      seed: seed of a workdir; None: the best on dev.

    Raises:
      UserError: the folder is neither, or is damaged.
    """
    if not files.is_dir(folder):
        raise UserError(
            f"{folder}: no such folder; wanted a workdir of electramed finetune or a folder of electramed export"
        )
    if workdir.is_finetuned(folder):
        trained = load_finetuned(folder, seed)
        spec = trained.spec
        source = f"{folder} (seed {trained.seed})"
        return LoadedModel(source, spec.model, spec.head, trained.tokenizer, trained.params, trained.postprocess)
    if files.exists(files.join(folder, DATASET_FILE)):
        raise UserError(
            f"{folder}: a workdir of pre-training; fine-tune it first: electramed finetune --config.init={folder}"
        )
    if seed is not None:
        raise UserError(f"--seed does not apply to {folder}, which contains one model; omit it")
    exported = finetuned.load_finetuned(folder)
    head = Head(exported.kind, exported.labels, exported.loss, exported.pooling, exported.markers)
    postprocess = postprocess_config.from_json(exported.postprocess, head, exported.model.max_positions, folder)
    return LoadedModel(folder, exported.model, head, exported.tokenizer, exported.params, postprocess)


class Predictor:
    """A model on the devices of this process. Its methods may be called any number of times; one step is compiled.

        predictor = electramed_jax.Predictor.from_pretrained("runs/ncbi")
        for entity in predictor.entities([text])[0]:
            print(text[entity.start : entity.stop], entity.type, entity.confidence)

    `model.head.kind` gives the method that applies: "token": `entities`, "sequence": `labels`, "span": `answers`.
    """

    @classmethod
    def from_pretrained(cls, folder: str, *, seed: int | None = None, batch_rows: int = 32) -> Predictor:
        """Loads the model of a workdir of fine-tuning or of an exported folder.

        Args:
          folder: the workdir, or a Hugging Face folder of a fine-tuned ELECTRA.
          seed: seed of a workdir; None: the best on dev.
          batch_rows: see `__init__`.

        Raises:
          UserError: the folder is neither, or is damaged.
        """
        return cls(load_model(folder, seed), batch_rows)

    def __init__(self, model: LoadedModel, batch_rows: int):
        """Moves the parameters to the devices.

        Args:
          batch_rows: rows of a batch, each of `postprocess.max_seq_length` tokens and filled with examples.
        """
        self.model = model
        config = dataclasses.replace(model.config, dropout=0.0, attention_dropout=0.0)
        self._spec = TrainSpec(config, model.head, model.tokenizer.special, FinetuneOptimizerConfig(), 1)
        self._mesh = sharding.make_mesh(MeshConfig(), jax.local_devices())
        abstract = self._spec.abstract_state(self._mesh).params
        self._params = jax.device_put(model.params, state_lib.get_shardings(abstract))
        self._step = jit_predict_step(self._spec, self._mesh)
        self._batch_rows, self._rows = batch_rows, 0

    def entities(self, texts: Sequence[str]) -> list[list[EntitySpan]]:
        """Returns the entities of each text, in order; a text may have any length."""
        encoded = word_lib.split_texts(texts, self.model.tokenizer)
        examples = word_windows.make_examples([words.pieces for words in encoded], self._length, self._spec.special)
        outputs = self.logits([example.input_ids for example in examples])
        logits = word_windows.join_logits(examples, outputs, [len(words.pieces) for words in encoded])
        transitions = np.array(self.model.postprocess.transitions) if self.model.postprocess.transitions else None
        decode = word_windows.make_decoder(self.model.postprocess.decoder, self.model.head.labels, transitions)
        return [self._entities(words.offsets, one, decode) for words, one in zip(encoded, logits, strict=True)]

    def labels(self, records: Sequence[Record | str | tuple[str, str]]) -> list[dict[str, Any]]:
        """Returns the prediction of each text, pair of texts, or record of a table.

        Softmax: {"label", "probability", "probabilities"}; sigmoid: {"labels", "probabilities"}; a number: {"score"}.
        "cut": True is added if the text was too long and lost a part.
        """
        if not records:
            return []
        rows = [_to_record(record, line) for line, record in enumerate(records, 1)]
        made = inputs.make_inputs(rows, inputs.placeholder_names(rows), self.model.tokenizer, self._length)
        head, logits = self.model.head, np.stack(self.logits(made.input_ids))
        predicted = predicted_labels(logits, head, self.model.postprocess.threshold)
        probabilities = compute_probabilities(logits, head).tolist()
        results = []
        for label, row, is_truncated in zip(predicted, probabilities, made.truncated, strict=True):
            by_label = dict(zip(head.labels, row, strict=True))
            result: dict[str, Any]
            if head.loss == SQUARED:
                result = {"score": label}
            elif head.loss == SIGMOID:
                result = {"labels": label, "probabilities": by_label}
            else:
                result = {"label": label, "probability": by_label[str(label)], "probabilities": by_label}
            results.append(result | ({"cut": True} if is_truncated else {}))
        return results

    def answers(self, questions: Sequence[Question]) -> list[Answers]:
        """Returns the candidate answers to each question; a passage may have any length."""
        windows, _ = make_windows(questions, self.model.tokenizer, self.model.postprocess.windowing)
        outputs = self.logits([window.input_ids for window in windows])
        return nbest.answer_questions(questions, windows, outputs, self.model.postprocess.max_answer_length)

    @property
    def _length(self) -> int:
        return self.model.postprocess.max_seq_length

    def logits(self, input_ids: Sequence[np.ndarray]) -> Outputs:
        """Returns the logits of examples with [CLS] and [SEP], none longer than a window; see `task.Outputs`."""
        if not input_ids:
            return []
        examples = Examples(input_ids, [_no_label(self.model.head, len(ids)) for ids in input_ids])
        if not self._rows:  # a first call with few examples is likely the only one: small batches suffice
            needed = 1 + max(row for row, _ in batches.pack([len(ids) for ids in input_ids], self._length))
            self._rows = round_up(min(self._batch_rows, needed), self._mesh.size)
        with jax.set_mesh(self._mesh):
            outputs = predict_logits(
                self._step, self._params, examples, self._spec, self._mesh, rows=self._rows, row_length=self._length
            )
        assert outputs is not None
        return outputs

    def _entities(
        self, offsets: np.ndarray, logits: np.ndarray, decode: Callable[[np.ndarray], np.ndarray]
    ) -> list[EntitySpan]:
        if not len(offsets):
            return []
        probabilities = compute_probabilities(logits, self.model.head)
        best = decode(logits)
        labels = [self.model.head.labels[index] for index in best]
        confidence = probabilities[np.arange(len(best)), best]
        return [
            EntitySpan(int(offsets[start, 0]), int(offsets[stop - 1, 1]), kind, float(confidence[start:stop].mean()))
            for start, stop, kind in tags.decode(labels)
        ]


def _to_record(record: Record | str | tuple[str, str], line: int) -> Record:
    if isinstance(record, Record):
        return record
    text, second = (record, "") if isinstance(record, str) else record
    return Record(text, second, "", line)


def _no_label(head: Head, length: int) -> np.ndarray:
    if head.kind == TOKEN:
        return np.full(length, IGNORE, np.int32)
    return np.zeros(2, np.int32) if head.kind == SPAN else np.array(IGNORE, np.int32)
