"""Scores for model cards: a Markdown table, and the metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown
from electramed_jax.finetune import published
from electramed_jax.finetune.task.task import DEV, TEST

# Names of the tasks on the Hub.
HUB_TASKS = {"ner": "token-classification", "qa": "question-answering"}
OTHER_TASKS = "text-classification"
_AFTER_CORPUS = re.compile(r"[:,(]| as | of ")  # follows the name of the corpus in the name of a variant
NOTE = """\
Percentages; mean ± standard deviation over the seeds. Scores compare only with scores on the same files: see the
variant and the hash. A published score is listed only if its authors are known to have used these files."""


def scores_table(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table of test scores (dev if there is no test) of fine-tuned models, and what limits these scores.

    "" for no results.

    Args:
      results: contents of results.json, one per task.
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
    limits = [
        f"- {one['task']}, {_variant(one, _split(one))}: {markdown.escape(warning)}"
        for one in results
        for warning in listed_warnings(one)
    ]
    listed = "\n".join(["\n\nWhat limits these scores:\n", *limits]) if limits else ""
    return f"{markdown.table(head, rows)}\n\n{NOTE}{listed}"


def hub_metadata(name: str, results: Sequence[Mapping[str, Any]], seed: int | None = None) -> dict[str, Any]:
    """Returns the scores as "model-index" metadata for the front matter of a card.

    Args:
      name: name of the model.
      seed: use the scores of this seed; None: the mean over all seeds.
    """
    entries = []
    for one in results:
        split, primary = _split(one), one["primary"]
        value = one["scores"][split][primary]["mean"]
        if seed is not None:
            value = next(run for run in one["runs"] if run["seed"] == seed)[split][primary]
        variant = _variant(one, split)
        entries.append(
            {
                "task": {"type": HUB_TASKS.get(one["task"], OTHER_TASKS)},
                "dataset": {"name": variant, "type": _slug(_AFTER_CORPUS.split(variant)[0]), "split": split},
                "metrics": [{"type": _slug(primary), "value": round(value, 4), "name": f"{primary}, percent"}],
            }
        )
    return {"model-index": [{"name": name, "results": entries}]} if entries else {}


def listed_warnings(one: Mapping[str, Any]) -> list[str]:
    """Returns what limits the scores, with the names of the files alone: a card has no local path."""
    paths = [file.get("path", "") for file in one["data"]["files"].values()]
    return [names_alone(warning, paths) for warning in one.get("warnings", ())]  # version 0.1 has none


def names_alone(sentence: str, paths: Sequence[str]) -> str:
    """Returns the sentence with the last part of each path in place of the path."""
    for path in sorted(filter(None, paths), key=len, reverse=True):
        sentence = sentence.replace(path, posixpath.basename(path.rstrip("/")))
    return sentence


def _split(one: Mapping[str, Any]) -> str:
    return TEST if TEST in one["scores"] else DEV


def _variant(one: Mapping[str, Any], split: str) -> str:
    """Returns the name of the variant with the start of the split's SHA-256, which identifies unknown files."""
    hashes = [file["sha256"] for name, file in one["data"]["files"].items() if name.split()[0] == split]
    name = "other files" if one["variant"] == published.UNKNOWN else one["variant"]
    return f"{name} ({split} SHA-256 {hashes[0][:12]})" if hashes else name


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
