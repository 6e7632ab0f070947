"""SQuAD's exact match and F1, as its official scripts count them (evaluate-v1.1.py, evaluate-v2.0.py).

Source of the rules: Rajpurkar et al. 2016, 2018 and the scripts beside the data sets.
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
    """Small letters, without ASCII punctuation and English articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, gold: str) -> float:
    """1.0 where both are the same after `normalize_answer`, else 0.0."""
    return float(normalize_answer(answer) == normalize_answer(gold))


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of the words; if one has no words, whether both have none."""
    words, gold_words = normalize_answer(answer).split(), normalize_answer(gold).split()
    if not words or not gold_words:
        return float(words == gold_words)
    common = (Counter(words) & Counter(gold_words)).total()
    return 2 * common / (len(words) + len(gold_words))


def squad_scores(questions: Sequence[Question], answers: Mapping[str, str]) -> dict[str, float]:
    """Means over all questions, in percent, as SQuAD's are published.

    An answer is held against each gold answer and the best counts; the gold answer of an impossible question is "".
    A question without an answer here counts as wrong, unless it is impossible.

    Args:
      questions: labelled.
      answers: by question id; "" says that there is none.

    Returns:
      `exact_match` and `f1`, and, where there are impossible questions, both again over the answerable
      (`has_answer_...`) and the impossible ones (`no_answer_...`).
    """
    kinds: dict[str, list[tuple[float, float]]] = {"has_answer_": [], "no_answer_": []}
    for question in questions:
        given = answers.get(question.id, "")
        # A gold answer of nothing but articles and punctuation is none (evaluate-v2.0.py).
        golds = [answer.text for answer in question.answers if normalize_answer(answer.text)] or [""]
        best = max(exact_match(given, gold) for gold in golds), max(f1(given, gold) for gold in golds)
        kinds["no_answer_" if question.impossible else "has_answer_"].append(best)
    found = _means("", sum(kinds.values(), []))
    if kinds["no_answer_"]:
        for kind, of_kind in kinds.items():
            found |= _means(kind, of_kind)
    return found


def _means(prefix: str, values: Sequence[tuple[float, float]]) -> dict[str, float]:
    count = max(1, len(values))
    return {
        f"{prefix}exact_match": 100 * sum(exact for exact, _ in values) / count,
        f"{prefix}f1": 100 * sum(overlap for _, overlap in values) / count,
    }
