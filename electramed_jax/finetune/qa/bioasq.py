"""BioASQ factoid and list questions: file format, answers merged over several passages, official measures.

    {"questions": [{"id": "...", "type": "factoid", "body": "...", "exact_answer": [["name", "synonym"]],
                    "snippets": [{"text": "..."}]}]}

A system returns up to five answers to a question, the best first. An answer is correct if it equals a gold answer or
a synonym, ignoring case; nothing else is normalized. The answer to a list question has any number of items; an item is
correct if it equals a gold item or one of its synonyms that no earlier item has. Source: the organizers' evaluation
program (github.com/BioASQ/Evaluation-Measures, EvaluatorTask1b -phaseB -e 5) and Krithara et al. 2023.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import json_values
from electramed_jax.finetune.qa.nbest import Answers, Candidate
from electramed_jax.finetune.qa.squad import Answer, Question, get_field

FACTOID, LIST = "factoid", "list"  # types of questions
MAX_ANSWERS = 5
MAX_ITEMS = 100  # of a list, in the guidelines of the challenge
MAX_ANSWER_CHARACTERS = 100  # limit of an exact answer in the guidelines of the challenge
_PASSAGE_NUMBER = re.compile(r"_\d+$")


@dataclasses.dataclass(frozen=True)
class Factoid:
    """A factoid or list question of a BioASQ file.

    Attributes:
      answers: gold answers and their synonyms, as written; () in a file without answers.
      items: the same by item of a list: each item with its synonyms.
      snippets: passages selected by the organizers, each text once.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    snippets: tuple[str, ...]
    items: tuple[tuple[str, ...], ...] = ()


def parse_factoids(path: str, value: Any, kind: str = FACTOID) -> list[Factoid]:
    """Returns the questions of a type in a BioASQ file; other types are ignored.

    Raises:
      UserError: a field is missing or has the wrong type, an id occurs twice, or there is no question of the type.
    """
    factoids: dict[str, Factoid] = {}
    for number, values in enumerate(get_field(value, "questions", list, path)):
        at = f"{path}: questions[{number}]"
        identifier = get_field(values, "id", str, at)
        at = f"{path}: question {identifier}"
        if get_field(values, "type", str, at) != kind:
            continue
        if identifier in factoids:
            raise UserError(f"{path}: question {identifier} occurs twice; ids must differ")
        snippets = get_field(values, "snippets", list, at) if "snippets" in values else []
        texts = [get_field(snippet, "text", str, f"{at}: snippet") for snippet in snippets]
        answer = values.get("exact_answer", [])
        items = [tuple(_strings(item, at)) for item in answer] if kind == LIST and isinstance(answer, list) else []
        factoids[identifier] = Factoid(
            identifier,
            get_field(values, "body", str, at),
            tuple(_strings(answer, at)),
            tuple(dict.fromkeys(text for text in texts if text.strip())),
            tuple(item for item in items if item),
        )
    if not factoids:
        raise UserError(f"{path}: no question of type {kind}; wanted BioASQ's JSON with questions")
    return list(factoids.values())


def as_questions(factoids: Iterable[Factoid], all_snippets: bool) -> list[Question]:
    """Returns one question per snippet, with ids `ID_000`, `ID_001`, ... and the first gold answer found in it.

    Without `all_snippets` a list question has one per snippet and item that is found in it: each is trained on.

    Args:
      all_snippets: include snippets without a gold answer.
    """
    questions = []
    for factoid in factoids:
        for number, snippet in enumerate(factoid.snippets):
            found = [_find_answer(answers, snippet) for answers in factoid.items or [factoid.answers]]
            answers = [answer for answer in found if answer]
            of_snippet = [tuple(answers[:1])] if all_snippets else [(answer,) for answer in answers]
            questions += [
                Question(f"{factoid.id}_{number:03d}", factoid.text, snippet, answers) for answers in of_snippet
            ]
    return questions


def question_id(passage_id: str) -> str:
    """Returns the id of the question: `ID` for the passages `ID_000`, `ID_001`, ..."""
    return _PASSAGE_NUMBER.sub("", passage_id)


def gold_answers(factoids: Iterable[Factoid]) -> dict[str, Set[str]]:
    """Returns the correct answers by question id."""
    return {factoid.id: set(factoid.answers) for factoid in factoids}


def gold_items(factoids: Iterable[Factoid]) -> dict[str, list[Set[str]]]:
    """Returns the items of the answer to each list question by its id, each with its synonyms."""
    return {factoid.id: [set(item) for item in factoid.items] for factoid in factoids}


def gold_answers_from_passages(questions: Iterable[Question]) -> dict[str, Set[str]]:
    """Returns the correct answers by question id: the answers of all passages of a question in SQuAD's format."""
    gold: dict[str, Set[str]] = {}
    for question in questions:
        number = question_id(question.id)
        gold[number] = gold.get(number, set()) | {answer.text for answer in question.answers}
    return gold


def clean_answer(text: str) -> str:
    """Returns the answer as submitted; "" if it is not submitted. Only the first rule that matches is applied.

    1. Removes a comma, full stop or space at the end.
    2. Removes parentheses around the whole answer.
    3. Rejects an answer with an opening but no closing parenthesis, or the reverse.

    Source: dmis-lab/bioasq-biobert, transform_n2b_factoid.py.
    """
    if text.endswith((",", ".", " ")):
        return text[:-1]
    if len(text) > 2 and text[0] == "(" and text[-1] == ")" and text.count("(") == text.count(")") == 1:
        return text[1:-1]
    return "" if ("(" in text) != (")" in text) else text


def merge_passages(passages: Iterable[Sequence[Candidate]], limit: int = MAX_ANSWERS) -> list[tuple[str, float]]:
    """Returns the best answers to a question over all its passages, with their scores.

    The score of an answer is the sum of its probabilities over the passages. Answers that differ only in case are one,
    written as the most probable one. Source: as `clean_answer`.

    Args:
      passages: candidates of each passage.
      limit: maximum number of answers.
    """
    candidates = sorted((c for passage in passages for c in passage), key=lambda c: -c.probability)
    written: dict[str, str] = {}
    totals: dict[str, float] = {}
    for candidate in candidates:
        text = clean_answer(candidate.text)
        if text and len(text) <= MAX_ANSWER_CHARACTERS:
            key = text.lower()
            written.setdefault(key, text)
            totals[key] = totals.get(key, 0.0) + candidate.probability
    ranked = sorted(totals.items(), key=lambda entry: -entry[1])
    return [(written[key], total) for key, total in ranked[:limit]]


def merge_by_question(
    pairs: Iterable[tuple[Question, Answers]], limit: int = MAX_ANSWERS
) -> dict[str, list[tuple[str, float]]]:
    """Returns the best answers over all passages by question id (see `merge_passages`), given those of each passage."""
    passages: dict[str, list[list[Candidate]]] = {}
    for question, answers in pairs:
        passages.setdefault(question_id(question.id), []).append(answers.candidates)
    return {number: merge_passages(of_question, limit) for number, of_question in passages.items()}


def choose_items(ranked: Sequence[tuple[str, float]], threshold: float) -> list[str]:
    """Returns the answers with at least `threshold` times the score of the best: the items of a list.

    Args:
      ranked: answers with their scores, best first, from `merge_passages`.
    """
    return [text for text, score in ranked if score >= threshold * ranked[0][1]]


def factoid_scores(gold: Mapping[str, Set[str]], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Computes strict accuracy (first answer), lenient accuracy (any of five) and mean reciprocal rank, in percent.

    A question without an answer counts as wrong. The organizers' program requires every question to be submitted, if
    need be with an empty list, and counts it in the same way.

    Args:
      gold: correct answers by question id.
      answers: answers by question id, best first; only the first `MAX_ANSWERS` count.
    """
    ranks = [_rank(gold[number], answers.get(number, ())) for number in gold]
    count = max(1, len(ranks))
    return {
        "strict_accuracy": 100 * sum(rank == 1 for rank in ranks) / count,
        "lenient_accuracy": 100 * sum(rank is not None for rank in ranks) / count,
        "mrr": 100 * sum(1 / rank for rank in ranks if rank) / count,
    }


def list_scores(gold: Mapping[str, Sequence[Set[str]]], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Computes mean precision, recall and F-measure of list questions, in percent.

    Each is computed for each question and averaged; "f1" is not that of the mean precision and recall. A question
    without an answer has 0 for all three.

    Args:
      gold: items with their synonyms by question id.
      answers: items by question id.
    """
    scores = []
    for number, items in gold.items():
        left = [{text.lower() for text in item} for item in items]
        predicted = answers.get(number, ())[:MAX_ITEMS]
        correct = 0
        for text in predicted:
            place = next((place for place, item in enumerate(left) if text.lower() in item), None)
            if place is not None:
                del left[place]
                correct += 1
        precision, recall = correct / max(1, len(predicted)), correct / max(1, len(items))
        scores.append((precision, recall, 2 * correct / max(1, len(predicted) + len(items))))
    means = [100 * sum(column) / max(1, len(scores)) for column in zip(*scores, strict=True)] or [0.0] * 3
    return dict(zip(("precision", "recall", "f1"), means, strict=True))


def to_submission(answers: Mapping[str, Sequence[str]], kind: str = FACTOID) -> dict[str, Any]:
    """Returns the answers in the format of a BioASQ submission: each exact answer in its own list."""
    limit = MAX_ANSWERS if kind == FACTOID else MAX_ITEMS
    return {
        "questions": [
            {"id": number, "type": kind, "exact_answer": [[text] for text in texts[:limit]]}
            for number, texts in answers.items()
        ]
    }


def _rank(gold: Set[str], answers: Sequence[str]) -> int | None:
    """Returns the rank of the first correct answer, from 1; None if there is none."""
    correct = {text.lower() for text in gold}
    return next((rank for rank, text in enumerate(answers[:MAX_ANSWERS], 1) if text.lower() in correct), None)


def _strings(value: Any, where: str) -> list[str]:
    """Returns the strings of `exact_answer`. Its format changed: "a", ["a", ...] or [["a", "synonym"], ...]."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list):
        return [text for item in value for text in _strings(item, where)]
    raise UserError(
        f"{where}: 'exact_answer' contains {json_values.shorten(value)}; wanted strings, or lists of strings"
    )


def _find_answer(answers: Sequence[str], context: str) -> Answer | None:
    """Returns the first occurrence of an answer in a passage.

    Whole words are preferred to parts ("Xa" is not the "xa" in "apixaban"), then earlier answers, then the same case.
    """
    for pattern in (r"(?<!\w){}(?!\w)", "{}"):
        for text in answers:
            for flags in (0, re.IGNORECASE):
                if match := re.search(pattern.format(re.escape(text)), context, flags):
                    return Answer(match[0], match.start())
    return None
