"""Exact match and F1 of SQuAD, as in its official scripts (evaluate-v1.1.py, evaluate-v2.0.py).

Source of the rules: Rajpurkar et al. 2016 and 2018, and the scripts published with the data sets.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence

from electramed_jax.finetune.qa.squad import Question

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Returns the text in lower case, without ASCII punctuation and English articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """Returns 1.0 if both are equal after `normalize_answer`, else 0.0."""
    return float(normalize_answer(answer) == normalize_answer(gold))


def f1(answer: str, gold: str) -> float:
    """Returns F1 over the words; if one text has no words, 1.0 if neither has any, else 0.0."""
    words, gold_words = normalize_answer(answer).split(), normalize_answer(gold).split()
    if not words or not gold_words:
        return float(words == gold_words)
    common = (Counter(words) & Counter(gold_words)).total()
    return 2 * common / (len(words) + len(gold_words))


def squad_scores(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """Computes the means over all questions, in percent.

    An answer is compared with each gold answer and the best score counts. The gold answer of an impossible question is
    "". A question that is missing in `answers` counts as answered with "".

    Args:
      questions: labelled questions.
      answers: by question id; "": no answer.

    Returns:
      "exact_match" and "f1". If there are impossible questions, also both scores over the answerable questions
      ("has_answer_...") and over the impossible ones ("no_answer_...").
    """
    kinds: dict[str, list[tuple[float, float]]] = {"has_answer_": [], "no_answer_": []}
    for question in questions:
        answer = answers.get(question.id, "")
        # A gold answer of only articles and punctuation is ignored (evaluate-v2.0.py).
        golds = [gold.text for gold in question.answers if normalize_answer(gold.text)] or [""]
        best = max(exact_match(answer, gold) for gold in golds), max(f1(answer, gold) for gold in golds)
        kinds["no_answer_" if question.impossible else "has_answer_"].append(best)
    scores = _means("", [*kinds["has_answer_"], *kinds["no_answer_"]])
    if kinds["no_answer_"]:
        for kind, of_kind in kinds.items():
            scores |= _means(kind, of_kind)
    return scores


def _means(prefix: str, values: Sequence[tuple[float, float]]) -> dict[str, float]:
    count = max(1, len(values))
    return {
        f"{prefix}exact_match": 100 * sum(exact for exact, _ in values) / count,
        f"{prefix}f1": 100 * sum(overlap for _, overlap in values) / count,
    }
