"""Predictions by kind of model: inputs and results of the JSON interface, fields of the page, and HTML of a result."""

from __future__ import annotations

import dataclasses
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

from pydantic import BaseModel

from electramed_jax.common.errors import UserError
from electramed_jax.common.page.markup import Markup
from electramed_jax.common.storage import files
from electramed_jax.finetune import predict_files
from electramed_jax.finetune.ner import tags
from electramed_jax.finetune.ner.entity_spans import EntitySpan
from electramed_jax.finetune.output import answer_formats, view
from electramed_jax.finetune.output.entity_formats import BRAT
from electramed_jax.finetune.predict_files import PredictionStats
from electramed_jax.finetune.predictor import LoadedModel, Predictor
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.text_classification.tables import Columns, Record
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN
from electramed_jax.hf.pretrained import detect
from electramed_jax.hf.pretrained.pair import PretrainedPair
from electramed_jax.serve import schemas, words_view

BATCH_ROWS = 8  # most rows of a step; one text usually needs one
_MASK = re.compile(re.escape("[MASK]"))


@dataclasses.dataclass(frozen=True)
class Field:
    """A text field of the page."""

    name: str
    label: str
    rows: int
    example: str
    required: bool = True


class Service(Protocol):
    """A model, as the page and the JSON interface use it.

    Attributes:
      name: of the model, without the path of its folder.
      kind: what it predicts.
      input_type, result_type: of the JSON interface.
    """

    name: str
    kind: ClassVar[str]
    input_type: ClassVar[type[BaseModel]]
    result_type: ClassVar[type[BaseModel]]

    @property
    def fields(self) -> Sequence[Field]:
        """Text fields of the page."""

    @property
    def labels(self) -> Sequence[str]:
        """Labels or types that the model predicts."""

    @property
    def formats(self) -> Sequence[str]:
        """Output formats of files; () if it does not read files."""

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """Returns the result of each input."""

    def render(self, given: Any, result: Any) -> Markup:
        """Returns the HTML of a result."""


class FileService:
    """Predictions for whole files, as `electramed predict` makes them: base of the services of fine-tuned models."""

    kind: ClassVar[str]

    def __init__(self, model: LoadedModel, name: str):
        self.name = name
        self._predictor = Predictor(dataclasses.replace(model, source=name), BATCH_ROWS)
        self.formats = predict_files.FORMATS[model.head.kind]

    def predict_file(self, path: str, form: str, output: str, stats: PredictionStats) -> Iterator[None]:
        """Writes the predictions for a file to the file `output`, and yields after each chunk."""
        model = self._predictor.model
        postprocess = model.postprocess
        predict_files.check_files([path], model.head.kind)
        options: Any = dict(
            batch_tokens=BATCH_ROWS * postprocess.max_seq_length,
            columns=Columns(postprocess.columns.text, postprocess.columns.second),
        )
        if form == BRAT:
            with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, content in predict_files.predict_brat(self._predictor, [path], stats, **options):
                    archive.writestr(name, content)
                    yield
            return
        with open(output, "w", encoding="utf-8") as file:
            for piece in predict_files.predict_files(self._predictor, [path], form, stats, **options):
                file.write(piece)
                yield


class EntityService(FileService):
    """Entities in a text."""

    kind: ClassVar[str] = "entities"
    input_type: ClassVar[type[BaseModel]] = schemas.TextInput
    result_type: ClassVar[type[BaseModel]] = schemas.EntityResult
    fields = (Field("text", "Text", 8, "Selegiline-induced postural hypotension in Parkinson's disease."),)

    def __init__(self, model: LoadedModel, name: str):
        super().__init__(model, name)
        self.labels = list(dict.fromkeys(kind for tag in model.head.labels if (kind := tags.split_tag(tag)[1])))

    def predict(self, inputs: Sequence[schemas.TextInput]) -> list[schemas.EntityResult]:
        """Returns the entities of each text."""
        texts = [given.text for given in inputs]
        return [
            schemas.EntityResult(
                entities=[
                    schemas.Entity(
                        start=one.start,
                        end=one.stop,
                        text=text[one.start : one.stop],
                        type=one.type,
                        confidence=round(one.confidence, 6),
                    )
                    for one in found
                ]
            )
            for text, found in zip(texts, self._predictor.entities(texts), strict=True)
        ]

    def render(self, given: schemas.TextInput, result: schemas.EntityResult) -> Markup:
        """Returns the text with its entities marked, and a table of them."""
        text = given.text
        found = [EntitySpan(one.start, one.end, one.type, one.confidence) for one in result.entities]
        parts = [view.entities(text, found, self.labels), view.entity_legend(found, self.labels)]
        return Markup("".join([*parts, view.entity_table(text, found)]))


class LabelService(FileService):
    """Labels or a score of a text or a pair of texts."""

    kind: ClassVar[str] = "labels"
    input_type: ClassVar[type[BaseModel]] = schemas.PairInput
    result_type: ClassVar[type[BaseModel]] = schemas.LabelResult

    def __init__(self, model: LoadedModel, name: str):
        super().__init__(model, name)
        self.labels = list(model.head.labels)
        marks = ", ".join(model.tokenizer.never_split)
        example = f"mentions as {marks}" if marks else "Aspirin inhibits platelet aggregation."
        self.fields = [Field("text", "Text", 6, example)]
        if model.postprocess.columns.second:
            self.fields.append(Field("second", "Second text", 6, "", required=False))

    def predict(self, inputs: Sequence[schemas.PairInput]) -> list[schemas.LabelResult]:
        """Returns the prediction of each text or pair."""
        records = [Record(given.text.strip(), given.second.strip(), "", line) for line, given in enumerate(inputs, 1)]
        return [schemas.LabelResult(**prediction) for prediction in self._predictor.labels(records)]

    def render(self, _given: schemas.PairInput, result: schemas.LabelResult) -> Markup:
        """Returns the labels with their probabilities."""
        return view.labels(result.model_dump(exclude_none=True))


class AnswerService(FileService):
    """The answer to a question in a passage."""

    kind: ClassVar[str] = "answers"
    input_type: ClassVar[type[BaseModel]] = schemas.QuestionInput
    result_type: ClassVar[type[BaseModel]] = schemas.AnswerResult
    labels: Sequence[str] = ()
    fields = (
        Field("question", "Question", 2, "Which drug inhibits the enzyme?"),
        Field("context", "Passage", 8, "A passage that contains the answer."),
    )

    def predict(self, inputs: Sequence[schemas.QuestionInput]) -> list[schemas.AnswerResult]:
        """Returns the answer to each question."""
        questions = [Question(str(number), given.question, given.context) for number, given in enumerate(inputs)]
        threshold = self._predictor.model.postprocess.null_threshold
        return [
            schemas.AnswerResult(
                answer=answers.text(threshold),
                candidates=[schemas.Candidate(**one) for one in answer_formats.candidates(answers)],
            )
            for answers in self._predictor.answers(questions)
        ]

    def render(self, given: schemas.QuestionInput, result: schemas.AnswerResult) -> Markup:
        """Returns the passage with the answer marked, and the candidates."""
        candidates = [one.model_dump() for one in result.candidates]
        return view.answers(given.context, result.answer, candidates)


class WordService:
    """Words of a text that a pre-trained discriminator takes for replaced, and proposals of the generator."""

    kind: ClassVar[str] = "words"
    input_type: ClassVar[type[BaseModel]] = schemas.MaskedInput
    result_type: ClassVar[type[BaseModel]] = schemas.WordResult
    labels: Sequence[str] = ()
    formats: Sequence[str] = ()
    fields = (Field("text", "Text", 8, "Aspirin reduces the risk of [MASK] in these patients."),)

    def __init__(self, pair: PretrainedPair, name: str):
        self.name = name
        self.networks = pair.networks
        self._predictor = detect.PairPredictor(pair)

    def predict(self, inputs: Sequence[schemas.MaskedInput]) -> list[schemas.WordResult]:
        """Returns the words of each text with the predictions for them."""
        texts = [given.text for given in inputs]
        masks = [
            [match.span() for match in _MASK.finditer(text)] + [_checked(span, text) for span in given.masks]
            for given, text in zip(inputs, texts, strict=True)
        ]
        return [
            schemas.WordResult(words=[_to_verdict(word, text) for word in words])
            for text, words in zip(texts, self._predictor.words(texts, masks), strict=True)
        ]

    def render(self, given: schemas.MaskedInput, result: schemas.WordResult) -> Markup:
        """Returns the text, each word with its verdict and as a button that masks it, and the proposals."""
        return words_view.words(given.text, result.words, self.networks)


def make_service(model: LoadedModel | PretrainedPair, folder: str) -> Service:
    """Returns the service of a model; its name is that of the folder."""
    name = os.path.basename(os.path.normpath(files.local_path(folder) or folder))
    if isinstance(model, PretrainedPair):
        return WordService(model, name)
    kinds: dict[str, Callable[[LoadedModel, str], Service]] = {
        TOKEN: EntityService,
        SEQUENCE: LabelService,
        SPAN: AnswerService,
    }
    return kinds[model.head.kind](model, name)


def _to_verdict(word: detect.Word, text: str) -> schemas.WordVerdict:
    return schemas.WordVerdict(
        start=word.start,
        end=word.stop,
        text=text[word.start : word.stop],
        replaced_probability=None if word.replaced_probability is None else round(word.replaced_probability, 6),
        proposals=[
            schemas.ProposedToken(token=one.token, probability=round(one.probability, 6)) for one in word.proposals
        ],
    )


def _checked(span: tuple[int, int], text: str) -> tuple[int, int]:
    start, stop = span
    if not 0 <= start < stop <= len(text):
        raise UserError(f"masks: {start} to {stop} is not in the text of {len(text):,} characters")
    return span
