"""Requests and responses of the JSON interface. They are also its OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

MAX_INPUTS = 64  # of a request
MAX_MASKS = 32  # of a text

Input = TypeVar("Input", bound=BaseModel)
Result = TypeVar("Result", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TextInput(_Strict):
    """A text."""

    text: str = Field(min_length=1, description="text of any length")


class PairInput(_Strict):
    """A text, or a pair of texts."""

    text: str = Field(min_length=1, description="text; mentions as placeholders if the model was trained on them")
    second: str = Field("", description="second text, for a model of pairs")


class QuestionInput(_Strict):
    """A question about a passage."""

    question: str = Field(min_length=1)
    context: str = Field(min_length=1, description="passage that contains the answer; of any length")


class MaskedInput(_Strict):
    """A text for a pre-trained model. The string [MASK] in it is a masked word."""

    text: str = Field(min_length=1)
    masks: list[tuple[int, int]] = Field(
        default_factory=list,
        max_length=MAX_MASKS,
        description="further masked words: first character, one past the last",
    )


class Entity(BaseModel):
    """An entity. Offsets count the characters (Unicode code points) of the text in the request."""

    start: int
    end: int = Field(description="one past the last character")
    text: str
    type: str
    confidence: float = Field(description="mean probability of the predicted tags of its words")


class EntityResult(BaseModel):
    """The entities of a text, in order."""

    entities: list[Entity]


class LabelResult(BaseModel):
    """The prediction for a text: `label` (one of several), `labels` (any number of them) or `score` (a number)."""

    label: str | None = None
    labels: list[str] | None = None
    score: float | None = None
    probabilities: dict[str, float] | None = None
    cut: bool = Field(False, description="the text was too long, and only a part of it was read")


class Candidate(BaseModel):
    """A possible answer, at its characters in the passage."""

    text: str
    start: int
    end: int
    probability: float


class AnswerResult(BaseModel):
    """The answer to a question, "" if the passage does not contain one, and the best candidates."""

    answer: str
    candidates: list[Candidate]


class ProposedToken(BaseModel):
    """A word piece that the generator proposes; "##" marks one that continues a word."""

    token: str
    probability: float


class WordVerdict(BaseModel):
    """A word with the predictions of a pre-trained pair."""

    start: int
    end: int
    text: str
    replaced_probability: float | None = Field(description="null without a discriminator")
    proposals: list[ProposedToken] = Field(description="of a masked word, best first; else empty")


class WordResult(BaseModel):
    """The words of a text, in order."""

    words: list[WordVerdict]


class Request(_Strict, Generic[Input]):
    """The inputs of one prediction."""

    inputs: Annotated[list[Input], Field(min_length=1, max_length=MAX_INPUTS)]


class Response(BaseModel, Generic[Result]):
    """A result for each input, in order."""

    model: str
    results: list[Result]


class ModelInfo(BaseModel):
    """Description of the served model and of the limits."""

    model: str
    kind: str = Field(description="entities, labels, answers or words")
    labels: list[str]
    formats: list[str] = Field(description="values of `format` of /api/files; empty if files are not accepted")
    max_text: int = Field(description="characters of a request")
    max_upload: int = Field(description="bytes of a file")


class Problem(BaseModel):
    """The reason why a request was not answered."""

    detail: Any
