"""Questions about passages in SQuAD's JSON format (1.1 and 2.0). Each answer is checked against its passage.

    {"data": [{"paragraphs": [{"context": "...", "qas": [
        {"id": "...", "question": "...", "answers": [{"text": "...", "answer_start": 17}], "is_impossible": false}]}]}]}

`is_impossible` (SQuAD 2.0): the passage does not answer the question. A question with neither answers nor this flag is
unlabelled: it can be predicted, but not trained on or scored.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, NamedTuple

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import decompression, json_values
from electramed_jax.data.readers.document import replace_lone_surrogates

_KINDS = {str: "a string", list: "a list", int: "a whole number", dict: "an object", bool: "true or false"}


class Answer(NamedTuple):
    """An answer in a passage: `context[start:start + len(text)] == text`."""

    text: str
    start: int

    @property
    def stop(self) -> int:
        """One past the last character."""
        return self.start + len(self.text)


@dataclasses.dataclass(frozen=True)
class Question:
    """One question about one passage.

    Attributes:
      answers: the first is the training label, any of them is correct; () if `impossible` or unlabelled.
      impossible: the passage does not answer the question.
    """

    id: str
    text: str
    context: str
    answers: tuple[Answer, ...] = ()
    impossible: bool = False

    @property
    def is_labelled(self) -> bool:
        """Whether the question can be trained on and scored."""
        return self.impossible or bool(self.answers)


@dataclasses.dataclass(frozen=True)
class SquadFile:
    """The questions of a file.

    Attributes:
      dropped: ids of questions left out because none of their answers is at its offset.
    """

    questions: list[Question]
    dropped: list[str]


def load_json(path: str) -> Any:
    """Reads the JSON value of a file, gzip or plain.

    Raises:
      UserError: the file is missing, empty or not JSON (with the line).
    """
    data = decompression.read_whole(path)
    if not data.strip():
        raise UserError(f"{path}: empty; wanted questions in SQuAD's JSON or BioASQ's")
    text: str | bytes = data
    with contextlib.suppress(UnicodeDecodeError):  # reported below, with its place
        text = replace_lone_surrogates(data.decode("utf-8"))
    return json_values.parse_json(text, path, advice="download or repair the file")


def parse_squad(path: str, value: Any, drop_mismatched: bool = False, *, labelled: bool = True) -> SquadFile:
    """Returns the questions of a file in SQuAD's format, in order.

    Args:
      path: for error messages.
      value: the JSON value, from `load_json`.
      drop_mismatched: leave out answers that are not at their offset, and questions without another answer, instead
        of raising.
      labelled: read the answers; False: return the questions without them and without `impossible`.

    Raises:
      UserError: a field is missing or has the wrong type, an id occurs twice, an answer is not at its offset, or there
        is no question; names file and question.
    """
    questions: dict[str, Question] = {}
    dropped = []
    for i, entry in enumerate(get_field(value, "data", list, path)):
        at_entry = f"{path}: data[{i}]"
        for j, paragraph in enumerate(get_field(entry, "paragraphs", list, at_entry)):
            at_paragraph = f"{at_entry}.paragraphs[{j}]"
            context = get_field(paragraph, "context", str, at_paragraph)
            for k, values in enumerate(get_field(paragraph, "qas", list, at_paragraph)):
                question = _question(path, values, f"{at_paragraph}.qas[{k}]", context)
                if not labelled:
                    question = dataclasses.replace(question, answers=(), impossible=False)
                if question.id in questions:
                    raise UserError(f"{path}: question {question.id} occurs twice; ids must differ")
                matching = tuple(answer for answer in question.answers if answer_matches_context(answer, context))
                if len(matching) < len(question.answers):
                    if not drop_mismatched:
                        raise UserError(f"{path}: question {question.id}: {_mismatch(question)}")
                    if not matching:
                        dropped.append(question.id)
                        continue
                questions[question.id] = dataclasses.replace(question, answers=matching)
    if not questions:
        raise UserError(f"{path}: no question ({len(dropped)} dropped); wanted SQuAD's JSON with data, paragraphs, qas")
    return SquadFile(list(questions.values()), dropped)


def answer_matches_context(answer: Answer, context: str) -> bool:
    """Returns whether the passage has the answer at its offset."""
    return answer.start >= 0 and bool(answer.text) and context[answer.start : answer.stop] == answer.text


def get_field(values: Any, name: str, kind: type, where: str) -> Any:
    """Returns `values[name]` after a type check.

    Args:
      where: start of the error message.

    Raises:
      UserError: the field is missing or has another type.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: got {json_values.shorten(values)}; wanted an object with {name!r}")
    if name not in values:
        raise UserError(f"{where} lacks {name!r}; it has {', '.join(map(repr, values))[:100] or 'nothing'}")
    if type(values[name]) is not kind:
        raise UserError(f"{where}: {name!r} is {json_values.shorten(values[name])}; wanted {_KINDS[kind]}")
    return values[name]


def _question(path: str, values: Any, where: str, context: str) -> Question:
    identifier = get_field(values, "id", str, where)
    where = f"{path}: question {identifier}"
    text = get_field(values, "question", str, where)
    for name, content in (("question", text), ("context", context)):
        if not content.strip():
            raise UserError(f"{where}: its {name} is empty; wanted text")
    if isinstance(values.get("answers"), str):
        raise UserError(
            f"{where}: its answer is the word {json_values.shorten(values['answers'])}; yes/no questions are "
            "classification, wanted spans of the passage as [{'text': ..., 'answer_start': ...}]"
        )
    impossible = get_field(values, "is_impossible", bool, where) if "is_impossible" in values else False
    listed = get_field(values, "answers", list, where) if "answers" in values else []
    if impossible and listed:
        raise UserError(f"{where}: is_impossible is true, but it has {len(listed)} answers; keep one of the two")
    answers = tuple(
        Answer(
            get_field(answer, "text", str, f"{where}: answer"),
            get_field(answer, "answer_start", int, f"{where}: answer"),
        )
        for answer in listed
    )
    return Question(identifier, text, context, answers, impossible)


def _mismatch(question: Question) -> str:
    answer = next(answer for answer in question.answers if not answer_matches_context(answer, question.context))
    there = question.context[max(0, answer.start) : max(0, answer.stop)]
    found = question.context.find(answer.text) if answer.text else -1
    nearest = f"the text is at {found}" if found >= 0 else "the passage does not contain the text"
    return (
        f"answer {answer.text!r}: answer_start is {answer.start}, where the passage has {there!r}; {nearest}; "
        "correct the offset (characters from 0), or leave such questions out with --config.qa.drop_mismatched=True"
    )
