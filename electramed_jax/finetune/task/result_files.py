"""Reads the files in which fine-tuning describes its results: results.json, scores.json of a seed, and data.json.

A score may be NaN or infinite: that of a model that has diverged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NotRequired, TypedDict

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.task.task import DEV


class SeedScores(TypedDict):
    """Content of scores.json, and an entry of "runs" in results.json.

    Attributes:
      best_step, best_epoch: when dev scored best.
      dev, test: scores of these parameters.
      history: dev scores, each with its "step" and "epoch".
      warnings: of the predictions on dev, see `Task.prediction_warnings`; version 0.1 has none.
    """

    seed: int
    best_step: int
    best_epoch: float
    dev: dict[str, float]
    test: NotRequired[dict[str, float]]
    history: list[dict[str, float]]
    warnings: NotRequired[list[str]]


class MeanScore(TypedDict):
    """A score over the seeds."""

    mean: float
    standard_deviation: float


class PublishedEntry(TypedDict):
    """A published score on the same files; see `published.PublishedScore`."""

    model: str
    metric: str
    value: float
    source: str


class DataFile(TypedDict):
    """A file of the corpus."""

    path: str
    sha256: str


class DataSummary(TypedDict):
    """The keys of data.json that are read; see `Task.data_summary`."""

    files: dict[str, DataFile]
    sizes: dict[str, dict[str, int]]


class Results(TypedDict):
    """Content of results.json; see `results.gather_results`."""

    task: str
    variant: str
    published: list[PublishedEntry]
    data: DataSummary
    encoder: str
    primary: str
    seeds: list[int]
    seeds_wanted: int
    scores: dict[str, dict[str, MeanScore]]
    runs: list[SeedScores]
    config: dict[str, Any]
    code: str


def read_results(path: str) -> dict[str, Any]:
    """Reads results.json.

    Raises:
      UserError: the file is damaged, or holds no seed or no dev scores.
    """
    advice = "restore it, or run the same electramed finetune command again, which writes it from the finished seeds"
    results = files.read_json(path, Results, finite=False, advice=advice)
    primary, splits = results["primary"], list(results["scores"])
    runs: list[dict[str, Any]] = [dict(run) for run in results["runs"]]
    if DEV not in splits or not runs or not results["seeds"]:
        raise UserError(f"{path}: holds no seed with dev scores; {advice}")
    for split in splits:
        if primary not in results["scores"][split] or any(primary not in run.get(split, {}) for run in runs):
            raise UserError(f"{path}: {split} lacks the score {primary!r}; {advice}")
    if missing := [split for split in splits if split not in results["data"]["sizes"]]:
        raise UserError(f"{path}: data.sizes lacks {missing[0]!r}; {advice}")
    for run in runs:
        _check_history(run["history"], primary, path, advice)
    return dict(results)


def read_scores(path: str, splits: Iterable[str], primary: str) -> dict[str, Any]:
    """Reads scores.json of a finished seed.

    Args:
      path: of the file.
      splits: the splits that are scored.
      primary: name of the score that each of them has.

    Raises:
      UserError: the file is damaged, or lacks a split or the primary score.
    """
    advice = "restore it, or remove the folder that holds it to train the seed again"
    scores: dict[str, Any] = dict(files.read_json(path, SeedScores, finite=False, advice=advice))
    for split in splits:
        if split not in scores:
            raise UserError(f"{path}: lacks the scores of {split!r}; {advice}")
        if primary not in scores[split]:
            raise UserError(f"{path}: {split} lacks the score {primary!r}; {advice}")
    _check_history(scores["history"], primary, path, advice)
    return scores


def read_data_summary(path: str) -> dict[str, Any]:
    """Reads data.json.

    Raises:
      UserError: the file is damaged.
    """
    return dict(files.read_json(path, DataSummary, advice="restore it from a backup of the workdir"))


def _check_history(history: list[dict[str, float]], primary: str, path: str, advice: str) -> None:
    wanted = {"step", "epoch", primary}
    if not history or not all(wanted <= scores.keys() for scores in history):
        raise UserError(f"{path}: its history lacks {', '.join(sorted(wanted))}; {advice}")
