"""Scores on model cards: a table for a person, and the Hub's metadata of the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown
from electramed_jax.finetune import published
from electramed_jax.finetune.task.task import DEV, TEST

# The Hub's names for kinds of tasks.
HUB_TASKS = {"ner": "token-classification", "qa": "question-answering"}
OTHER_TASKS = "text-classification"
_CORPUS = re.compile(r"[:,(]| as | of ")  # what follows a corpus's name
NOTE = """\
Percentages; mean ± standard deviation over the seeds. Scores compare only with scores on the same files, which the
variant and the hash tell; published ones stand here where their authors' files are known to be those."""


def scores_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Test scores (dev where there is no test) of models fine-tuned from this one; "" of none.

    Args:
      results: what results.json holds, one for each task.
    """
    rows = []
    for one in results:
        split = _split(one)
        score = one["scores"][split][one["primary"]]
        spread = f" ± {score['standard_deviation']:.2f}" if len(one["seeds"]) > 1 else ""
        sizes = ", ".join(f"{count:,} {name}" for name, count in one["data"]["sizes"][split].items())
        others = [s for s in one["published"] if s["metric"] == one["primary"] and split == TEST]
        rows.append(
            [
                one["task"],
                _variant(one, split),
                f"{split}: {sizes}",
                one["primary"],
                f"{score['mean']:.2f}{spread}",
                len(one["seeds"]),
                "; ".join(f"{s['value']:.2f}, {s['model']} ({s['source']})" for s in others),
            ]
        )
    if not rows:
        return ""
    head = ["task", "data", "split", "score", "value", "seeds", "published"]
    return f"{markdown.table(head, rows)}\n\n{NOTE}"


def hub_metadata(name: str, results: Sequence[Mapping[str, Any]], seed: int | None = None) -> dict[str, Any]:
    """The same for a card's front matter.

    Args:
      name: of the model.
      seed: the scores of this one alone; None: the mean over all.
    """
    found = []
    for one in results:
        split, primary = _split(one), one["primary"]
        value = one["scores"][split][primary]["mean"]
        if seed is not None:
            value = next(run for run in one["runs"] if run["seed"] == seed)[split][primary]
        variant = _variant(one, split)
        found.append(
            {
                "task": {"type": HUB_TASKS.get(one["task"], OTHER_TASKS)},
                "dataset": {"name": variant, "type": _slug(_CORPUS.split(variant)[0]), "split": split},
                "metrics": [{"type": _slug(primary), "value": round(value, 4), "name": f"{primary}, percent"}],
            }
        )
    return {"model-index": [{"name": name, "results": found}]} if found else {}


def _split(one: Mapping[str, Any]) -> str:
    return TEST if TEST in one["scores"] else DEV


def _variant(one: Mapping[str, Any], split: str) -> str:
    """Also where the files are nobody's that are known here, something to tell them by."""
    hashes = [file["sha256"] for name, file in one["data"]["files"].items() if name.split()[0] == split]
    name = "other files" if one["variant"] == published.UNKNOWN else one["variant"]
    return f"{name} ({split} SHA-256 {hashes[0][:12]})" if hashes else name


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
