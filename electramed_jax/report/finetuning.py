"""Fine-tuning runs in a report: the dev score of each seed by step, and the test scores of each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electramed_jax.report import curves

CLASS_MEASURES = ("precision", "recall", "f1")  # names of scores are "f1/LABEL"

Scores = Mapping[str, Mapping[str, Any]]  # contents of results.json, by the name of the workdir


def dev_curves(scores: Scores) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns (title, values) for each fine-tuning run, by key: the primary dev score by step, a line for each seed."""
    drawn = {}
    for number, (name, results) in enumerate(scores.items()):
        primary = results["primary"]
        series = {
            f"seed {run['seed']}": [(int(entry["step"]), float(entry[primary])) for entry in run["history"]]
            for run in results["runs"]
        }
        drawn[f"dev_score_{number}"] = f"{name}: dev {primary}", curves.line_values(series, "step")
    return drawn


def class_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """Returns a row for each class: its name and the mean of its scores over the seeds; on dev if there is no test."""
    scores = results["scores"].get("test", results["scores"]["dev"])
    labels = dict.fromkeys(name.partition("/")[2] for name in scores if name.startswith("f1/"))
    return [[label, *(_mean(scores.get(f"{measure}/{label}")) for measure in CLASS_MEASURES)] for label in labels]


def _mean(score: Mapping[str, float] | None) -> str:
    return "" if score is None else f"{score['mean']:.2f}"
