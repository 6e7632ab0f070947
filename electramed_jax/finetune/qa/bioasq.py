"""BioASQ factoid questions: read in the organisers' form, answers of several passages merged, official measures.

    {"questions": [{"id": "...", "type": "factoid", "body": "...", "exact_answer": [["name", "synonym"]],
                    "snippets": [{"text": "..."}]}]}

A system returns up to five answers to a question, the best first. One is right if it equals a gold answer or a
synonym of it but for capitals; nothing else is normalised. Source: the organisers' evaluation program
(github.com/BioASQ/Evaluation-Measures, EvaluatorTask1b -phaseB -e 5) and Krithara et al. 2023.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.qa.nbest import Answers, Candidate
from electramed_jax.finetune.qa.squad import Answer, Question, get_field

MAX_ANSWERS = 5
MAX_ANSWER_CHARACTERS = 100  # a longer exact answer is not accepted: the challenge's guidelines
_PASSAGE_NUMBER = re.compile(r"_\d+$")


@dataclasses.dataclass(frozen=True)
class Factoid:
    """A factoid question of the organisers' files.

    Attributes:
      answers: gold answers and their synonyms, as written; () in a file without them.
      snippets: passages the organisers found, each text once.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    snippets: tuple[str, ...]


def parse_factoids(path: str, value: Any) -> list[Factoid]:
    """The factoid questions of a file in the organisers' form; other types are passed over.

    Raises:
      UserError: a field is missing or of the wrong kind, an id stands twice, or there is no factoid question.
    """
    found: dict[str, Factoid] = {}
    for number, values in enumerate(get_field(value, "questions", list, path)):
        at = f"{path}: questions[{number}]"
        identifier = get_field(values, "id", str, at)
        at = f"{path}: question {identifier}"
        if get_field(values, "type", str, at) != "factoid":
            continue
        if identifier in found:
            raise UserError(f"{path}: question {identifier} stands in it twice; ids must differ")
        snippets = get_field(values, "snippets", list, at) if "snippets" in values else []
        texts = [get_field(snippet, "text", str, f"{at}: snippet") for snippet in snippets]
        found[identifier] = Factoid(
            identifier,
            get_field(values, "body", str, at),
            tuple(_strings(values.get("exact_answer", []), at)),
            tuple(dict.fromkeys(text for text in texts if text.strip())),
        )
    if not found:
        raise UserError(f"{path}: no question of type factoid in it; wanted BioASQ's JSON with questions")
    return list(found.values())


def as_questions(factoids: Iterable[Factoid], all_snippets: bool) -> list[Question]:
    """One question a snippet, with ids `ID_000`, `ID_001`, ...; with the place of a gold answer where there is one.

    Args:
      all_snippets: give those without a gold answer, too.
    """
    questions = []
    for factoid in factoids:
        for number, snippet in enumerate(factoid.snippets):
            answer = _find(factoid.answers, snippet)
            if answer or all_snippets:
                answers = (answer,) if answer else ()
                questions.append(Question(f"{factoid.id}_{number:03d}", factoid.text, snippet, answers))
    return questions


def question_id(passage_id: str) -> str:
    """The question that `ID_000`, `ID_001`, ... ask of several passages."""
    return _PASSAGE_NUMBER.sub("", passage_id)


def gold_answers(factoids: Iterable[Factoid]) -> dict[str, Set[str]]:
    """Question id -> what counts as right."""
    return {factoid.id: set(factoid.answers) for factoid in factoids}


def gold_answers_from_passages(questions: Iterable[Question]) -> dict[str, Set[str]]:
    """The same of questions in SQuAD's form: what is marked in any of a question's passages."""
    found: dict[str, set[str]] = {}
    for question in questions:
        found.setdefault(question_id(question.id), set()).update(answer.text for answer in question.answers)
    return found


def clean_answer(text: str) -> str:
    """An answer as it is handed in, "" for one that is not: the first of these rules that applies, and no other.

    A comma, full stop or space at the end goes; so do parentheses around the whole; an answer with an opening and no
    closing parenthesis, or the reverse, is none. Source: dmis-lab/bioasq-biobert, transform_n2b_factoid.py.
    """
    if text.endswith((",", ".", " ")):
        return text[:-1]
    if len(text) > 2 and text[0] == "(" and text[-1] == ")" and text.count("(") == text.count(")") == 1:
        return text[1:-1]
    return "" if ("(" in text) != (")" in text) else text


def merge_passages(passages: Iterable[Sequence[Candidate]], limit: int = MAX_ANSWERS) -> list[tuple[str, float]]:
    """The best answers of a question over all its passages, with their scores.

    An answer's score is the sum of its probabilities: an answer found in several passages gains. Answers that differ
    in capitals only are one, written as where it is most probable. Source: as `clean_answer`.

    Args:
      passages: the candidates of each.
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


def merge_by_question(found: Iterable[tuple[Question, Answers]]) -> dict[str, list[tuple[str, float]]]:
    """By question id, the best answers over all its passages (see `merge_passages`), given what was found in each."""
    passages: dict[str, list[list[Candidate]]] = {}
    for question, answers in found:
        passages.setdefault(question_id(question.id), []).append(answers.candidates)
    return {number: merge_passages(of_question) for number, of_question in passages.items()}


def factoid_scores(gold: Mapping[str, Set[str]], answers: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Strict accuracy (the first answer is right), lenient accuracy (one of five is), mean reciprocal rank; percent.

    A question without an answer counts as wrong. (The organisers' program wants each question handed in, with an
    empty list if need be, and counts it the same.)

    Args:
      gold: by question id, what counts as right.
      answers: by question id, the best first; beyond `MAX_ANSWERS` none counts.
    """
    ranks = [_rank(gold[number], answers.get(number, ())) for number in gold]
    count = max(1, len(ranks))
    return {
        "strict_accuracy": 100 * sum(rank == 1 for rank in ranks) / count,
        "lenient_accuracy": 100 * sum(rank is not None for rank in ranks) / count,
        "mrr": 100 * sum(1 / rank for rank in ranks if rank) / count,
    }


def to_submission(answers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Answers in the form the organisers take: exact answers, each in a list of its own."""
    return {
        "questions": [
            {"id": number, "type": "factoid", "exact_answer": [[text] for text in texts[:MAX_ANSWERS]]}
            for number, texts in answers.items()
        ]
    }


def _rank(gold: Set[str], answers: Sequence[str]) -> int | None:
    """1 for the first answer, and so on; None where none of them is right."""
    right = {text.lower() for text in gold}
    return next((rank for rank, text in enumerate(answers[:MAX_ANSWERS], 1) if text.lower() in right), None)


def _strings(value: Any, where: str) -> list[str]:
    """The strings of `exact_answer`, which the years wrote as "a", ["a", ...] and [["a", "synonym"], ...]."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, list):
        return [text for item in value for text in _strings(item, where)]
    raise UserError(f"{where}: 'exact_answer' holds {value!r}; wanted strings, in lists or not")


def _find(answers: Sequence[str], context: str) -> Answer | None:
    """Whole words are preferred to parts ("Xa" is not the "xa" in "apixaban"), then the answer named first, then the
    same capitals."""
    for pattern in (r"(?<!\w){}(?!\w)", "{}"):
        for text in answers:
            for flags in (0, re.IGNORECASE):
                if match := re.search(pattern.format(re.escape(text)), context, flags):
                    return Answer(match[0], match.start())
    return None
