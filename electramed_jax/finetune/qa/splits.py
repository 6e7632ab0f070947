"""The files of a question-answering task: SQuAD's form or the BioASQ organisers', several to a split, kept apart.

A question is asked of several passages in BioASQ: each has an id of its own, `ID_000`, `ID_001`, ... All of them are in
one split, whatever file they came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence, Set

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.qa import bioasq, squad
from electramed_jax.finetune.qa.squad import Question

SQUAD, BIOASQ = "squad", "bioasq"
_GOLD_SUFFIX = "_golden"


@dataclasses.dataclass
class Split:
    """What the files of a split hold.

    Attributes:
      questions: one for each question and passage.
      gold: by question id, what counts as right; of questions in SQuAD's form, what is marked in any passage.
      batches: by the name of each file (or gold file), the ids of its questions.
      forms: of the files, SQUAD or BIOASQ.
      mismatched: questions left out because no answer stands at its offset.
      asked_elsewhere: questions left out because another split has them.
    """

    questions: list[Question] = dataclasses.field(default_factory=list)
    gold: dict[str, Set[str]] = dataclasses.field(default_factory=dict)
    batches: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    forms: list[str] = dataclasses.field(default_factory=list)
    mismatched: int = 0
    asked_elsewhere: int = 0

    def ids(self) -> list[str]:
        """Of the questions, each once."""
        return list(dict.fromkeys(bioasq.question_id(question.id) for question in self.questions))

    def attainable(self) -> int:
        """How many questions have a gold answer, capitals ignored, in one of their passages: no more can be right."""
        passages: dict[str, list[str]] = {}
        for question in self.questions:
            passages.setdefault(bioasq.question_id(question.id), []).append(question.context.lower())
        return sum(
            any(text.lower() in passage for text in texts for passage in passages.get(number, ()))
            for number, texts in self.gold.items()
        )


def expand_paths(listed: str) -> list[str]:
    """Files named with commas between; `*` and `?` stand for what matches.

    Raises:
      UserError: a pattern that matches nothing.
    """
    return files.glob([name.strip() for name in listed.split(",") if name.strip()]) if listed else []


def read_split(
    listed: Sequence[str], *, for_training: bool, drop_mismatched: bool = False, labelled: bool = True
) -> Split:
    """The questions of a split's files.

    Args:
      for_training: leave out the passages of the organisers' files that contain no gold answer.
      drop_mismatched, labelled: see `squad.parse`.

    Raises:
      UserError: see `squad.parse` and `bioasq.parse`; or an id stands in two files of what is measured on (the number
        of a passage may, where several sets of them are trained on).
    """
    split = Split()
    for path in listed:
        value = squad.load_json(path)
        if isinstance(value, dict) and "questions" in value and "data" not in value:
            factoids = bioasq.parse_factoids(path, value)
            questions = bioasq.as_questions(factoids, all_snippets=not for_training)
            gold = bioasq.gold_answers(factoids)
            split.forms.append(BIOASQ)
        else:
            found = squad.parse_squad(path, value, drop_mismatched, labelled=labelled)
            questions, gold = found.questions, bioasq.gold_answers_from_passages(found.questions)
            split.mismatched += len(found.dropped)
            split.forms.append(SQUAD)
        if not for_training:
            _differ(path, split, questions)
        split.questions += questions
        for number, texts in gold.items():
            split.gold[number] = split.gold.get(number, set()) | texts
        split.batches[_name(path)] = list(gold)
    return split


def with_gold(split: Split, listed: Sequence[str]) -> Split:
    """The split with the gold answers of the organisers' files in place of its own.

    Raises:
      UserError: a gold file none of whose questions the split asks, or questions of it without an answer.
    """
    asked = set(split.ids())
    gold: dict[str, Set[str]] = {}
    batches = {}
    for path in listed:
        found = bioasq.gold_answers(bioasq.parse_factoids(path, squad.load_json(path)))
        if not asked & found.keys():
            raise UserError(
                f"{path}: none of its {len(found)} factoid questions is in the test files "
                f"(theirs: {next(iter(asked), 'none')}, ...; its: {next(iter(found))}, ...); "
                "give the gold files of the same batches"
            )
        if empty := [number for number, texts in found.items() if not texts]:
            raise UserError(f"{path}: question {empty[0]} has no exact_answer; wanted the golden file of the batch")
        gold |= found
        batches[_name(path)] = list(found)
    return dataclasses.replace(split, gold=gold, batches=batches)


def exclude_questions(split: Split, others: Sequence[Split], by_question: bool) -> Split:
    """The split without the questions that others have: nothing that is measured on is trained on.

    Args:
      by_question: two are the same if their question is (its id, or its words), whatever the passage; else if
        question and passage both are.
    """
    taken = {key for other in others for question in other.questions for key in _keys(question, by_question)}
    kept = [question for question in split.questions if not taken & _keys(question, by_question)]
    left = {bioasq.question_id(question.id) for question in kept}
    return dataclasses.replace(
        split,
        questions=kept,
        gold={number: texts for number, texts in split.gold.items() if number in left},
        batches={},
        asked_elsewhere=len(split.questions) - len(kept),
    )


def hold_out(split: Split, fraction: float) -> Split:
    """A fraction of the split's questions, each with all its passages; the same ones whatever else is in the files.

    Raises:
      UserError: too few questions for one to be held out.
    """
    chosen = [question for question in split.questions if _share(question) < fraction]
    if not chosen:
        raise UserError(
            f"dev_fraction={fraction} of {len(split.ids())} training questions holds none out; use a larger one, or "
            "add --config.task.dev=FILE"
        )
    return Split(chosen, bioasq.gold_answers_from_passages(chosen), {}, split.forms)


def _differ(path: str, split: Split, questions: Sequence[Question]) -> None:
    known = {question.id for question in split.questions}
    if twice := [question.id for question in questions if question.id in known]:
        raise UserError(f"{path}: question {twice[0]} stands in another file of the same split, too; give it once")


def _keys(question: Question, by_question: bool) -> set[tuple[str, ...]]:
    words = " ".join(question.text.lower().split())
    return {(bioasq.question_id(question.id),), ("words", words)} if by_question else {(words, question.context)}


def _share(question: Question) -> float:
    """A number from 0 to 1 by the words of the question."""
    words = " ".join(question.text.lower().split())
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64


def _name(path: str) -> str:
    return os.path.basename(path).split(".")[0].removesuffix(_GOLD_SUFFIX)
