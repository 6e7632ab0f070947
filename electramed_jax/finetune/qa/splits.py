"""The splits of a question-answering task, read from one or more files in SQuAD's or BioASQ's format.

In BioASQ a question has several passages, with the ids `ID_000`, `ID_001`, ... All passages of a question are in one
split, whatever their files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence, Set

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.qa import bioasq, squad, squad_rows
from electramed_jax.finetune.qa.squad import Question

SQUAD, BIOASQ, BIOASQ_LIST = "squad", "bioasq", "bioasq_list"
_GOLD_SUFFIX = "_golden"


@dataclasses.dataclass
class Split:
    """The questions and gold answers of a split.

    Attributes:
      questions: one per question and passage.
      gold: correct answers by question id; for SQuAD's format the answers in any passage.
      items: list questions: the items of the answer by question id; for SQuAD's format each answer is one.
      batches: ids of the questions by the name of their file (or gold file).
      formats: SQUAD or BIOASQ, one per file.
      mismatched: number of questions left out because no answer is at its offset.
      asked_elsewhere: number of questions left out because another split has them.
    """

    questions: list[Question] = dataclasses.field(default_factory=list)
    gold: dict[str, Set[str]] = dataclasses.field(default_factory=dict)
    items: dict[str, list[Set[str]]] = dataclasses.field(default_factory=dict)
    batches: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    formats: list[str] = dataclasses.field(default_factory=list)
    mismatched: int = 0
    asked_elsewhere: int = 0

    def ids(self) -> list[str]:
        """Returns the ids of the questions, each once."""
        return list(dict.fromkeys(bioasq.question_id(question.id) for question in self.questions))

    def attainable(self) -> int:
        """Returns how many questions have a gold answer, ignoring case, in one of their passages.

        No more questions can be answered correctly.
        """
        passages: dict[str, list[str]] = {}
        for question in self.questions:
            passages.setdefault(bioasq.question_id(question.id), []).append(question.context.lower())
        return sum(
            any(text.lower() in passage for text in texts for passage in passages.get(number, ()))
            for number, texts in self.gold.items()
        )


def expand_paths(listed: str) -> list[str]:
    """Returns the files of a comma-separated list of paths and patterns with `*` and `?`.

    Raises:
      UserError: a pattern matches no file.
    """
    return files.glob([name.strip() for name in listed.split(",") if name.strip()]) if listed else []


def read_split(
    listed: Sequence[str],
    *,
    for_training: bool,
    drop_mismatched: bool = False,
    labelled: bool = True,
    kind: str = bioasq.FACTOID,
) -> Split:
    """Reads the files of a split.

    Args:
      kind: type of the questions that are read from BioASQ files.
      for_training: leave out the passages of BioASQ files that contain no gold answer.
      drop_mismatched, labelled: see `squad.parse_squad`.

    Raises:
      UserError: see `squad.parse_squad` and `bioasq.parse_factoids`; or an id occurs in two files of a dev or test
        split. (In training several sets of passages may have the same numbers.)
    """
    split = Split()
    for path in listed:
        value = squad_rows.to_squad(squad.load_json(path))
        if isinstance(value, dict) and "questions" in value and "data" not in value:
            factoids = bioasq.parse_factoids(path, value, kind)
            questions = bioasq.as_questions(factoids, all_snippets=not for_training)
            gold = bioasq.gold_answers(factoids)
            items = bioasq.gold_items(factoids)
            split.formats.append(BIOASQ)
        else:
            file = squad.parse_squad(path, value, drop_mismatched, labelled=labelled)
            questions, gold = file.questions, bioasq.gold_answers_from_passages(file.questions)
            items = {question_id: [{text} for text in sorted(texts)] for question_id, texts in gold.items()}
            split.mismatched += len(file.dropped)
            split.formats.append(SQUAD)
        if not for_training:
            _check_new_ids(path, split, questions)
        split.questions += questions
        for question_id, texts in gold.items():
            split.gold[question_id] = split.gold.get(question_id, set()) | texts
            split.items[question_id] = [*split.items.get(question_id, []), *items[question_id]]
        split.batches[_batch_name(path)] = list(gold)
    return split


def with_gold(split: Split, listed: Sequence[str], kind: str = bioasq.FACTOID) -> Split:
    """Returns the split with the gold answers of BioASQ's golden files in place of its own.

    Raises:
      UserError: a gold file has no question of the split, or a question without an answer.
    """
    ids = set(split.ids())
    gold: dict[str, Set[str]] = {}
    items: dict[str, list[Set[str]]] = {}
    batches = {}
    for path in listed:
        factoids = bioasq.parse_factoids(path, squad.load_json(path), kind)
        answers = bioasq.gold_answers(factoids)
        if not ids & answers.keys():
            raise UserError(
                f"{path}: none of its {len(answers)} {kind} questions is in the test files "
                f"(ids there: {next(iter(ids), 'none')}, ...; ids here: {next(iter(answers))}, ...); "
                "use the gold files of the same batches"
            )
        if empty := [question_id for question_id, texts in answers.items() if not texts]:
            raise UserError(f"{path}: question {empty[0]} has no exact_answer; wanted the golden file of the batch")
        gold |= answers
        items |= bioasq.gold_items(factoids)
        batches[_batch_name(path)] = list(answers)
    return dataclasses.replace(split, gold=gold, items=items, batches=batches)


def exclude_questions(split: Split, others: Sequence[Split], by_question: bool) -> Split:
    """Returns the split without the questions of other splits, so that no evaluated question is trained on.

    Args:
      by_question: compare only the question (its id or its words), whatever the passage; else question and passage.
    """
    taken = {key for other in others for question in other.questions for key in _keys(question, by_question)}
    kept = [question for question in split.questions if not taken & _keys(question, by_question)]
    kept_ids = {bioasq.question_id(question.id) for question in kept}
    return dataclasses.replace(
        split,
        questions=kept,
        gold={question_id: texts for question_id, texts in split.gold.items() if question_id in kept_ids},
        batches={},
        asked_elsewhere=len(split.questions) - len(kept),
    )


def question_keys(split: Split, by_question: bool) -> list[tuple[str, ...]]:
    """Returns the words of each question, once (`by_question`), or the words and the passage of each pair."""
    if by_question:
        return list(dict.fromkeys((_words(question),) for question in split.questions))
    return [(_words(question), question.context) for question in split.questions]


def hold_out(split: Split, fraction: float) -> Split:
    """Returns a fraction of the questions, each with all its passages.

    Whether a question is chosen depends on its words only, so that it stays when the files grow.

    Raises:
      UserError: the fraction contains no question.
    """
    chosen = [question for question in split.questions if _hash_fraction(question) < fraction]
    if not chosen:
        raise UserError(
            f"dev_fraction={fraction} of {len(split.ids())} training questions is none; use a larger fraction, or "
            "add --config.task.dev=FILE"
        )
    gold = bioasq.gold_answers_from_passages(chosen)
    items = {number: split.items.get(number, []) for number in gold}
    return Split(chosen, gold, items, {}, split.formats)


def _check_new_ids(path: str, split: Split, questions: Sequence[Question]) -> None:
    """Raises UserError if the split already has one of the questions."""
    known = {question.id for question in split.questions}
    if twice := [question.id for question in questions if question.id in known]:
        raise UserError(f"{path}: question {twice[0]} is in another file of the same split; remove one of them")


def _keys(question: Question, by_question: bool) -> set[tuple[str, ...]]:
    """Returns keys of which equal questions share at least one."""
    words = _words(question)
    return {(bioasq.question_id(question.id),), ("words", words)} if by_question else {(words, question.context)}


def _words(question: Question) -> str:
    """Returns the question in lower case with single spaces, by which equal questions are recognized."""
    return " ".join(question.text.lower().split())


def _hash_fraction(question: Question) -> float:
    """Returns a hash of the words of the question, from 0 to 1."""
    words = _words(question)
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") / 2**64


def _batch_name(path: str) -> str:
    return os.path.basename(path).split(".")[0].removesuffix(_GOLD_SUFFIX)
