"""Is one run better than another on the same examples? Difference, confidence interval and p-value.

The examples are resampled, never the seeds: the result is about these trained models on other examples of the kind.
Standard deviations over seeds, in results.md, are about training.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values
from electramed_jax.finetune import load_model
from electramed_jax.finetune.analysis import score_sums
from electramed_jax.finetune.analysis.score_sums import ScoreSums
from electramed_jax.finetune.training import workdir

RESAMPLES = 10_000
_CHUNK = 250  # resamples with weights in memory at once
_PLACE = ("line", "id", "document", "text", "words", "gold")  # what must be equal for examples to be the same


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of `compare_scores`; scores in percent.

    Attributes:
      first, second: mean scores over the seeds.
      difference: second - first.
      low, high: 95 % interval of the difference, by paired bootstrap of the examples (percentiles).
      p_value: two-sided, by approximate randomization: how often a difference at least as large occurs if the two
        systems swap their predictions of random examples. Exact if all swaps can be tried.
      examples: number of examples, or of documents.
      seeds: number of seeds of each run that were compared.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    examples: int
    seeds: int


def read_records(run_folder: str, split: str) -> dict[int, list[dict[str, Any]]]:
    """Returns the records of each finished seed of a run.

    Raises:
      UserError: there is no such run, or it has no records of the split.
    """
    results = load_model.read_results(run_folder)
    records = {}
    for seed in results["seeds"]:
        path = files.join(workdir.seed_folder(run_folder, seed), workdir.records_file(split))
        if not files.exists(path):
            raise UserError(
                f"{path}: no such file; a run of an earlier version, or without a scored {split} split, has no "
                "records; choose --split, or train again"
            )
        lines = files.read_text(path).split("\n")[:-1]  # texts may contain other line ends
        records[seed] = [
            json_values.parse_json(line, path, dict[str, Any], line=number, finite=False)
            for number, line in enumerate(lines, 1)
        ]
    return records


def compare_runs(
    first: str, second: str, split: str, score: str = "", resamples: int = RESAMPLES
) -> tuple[str, Comparison]:
    """Compares two runs of `electramed finetune` on a split; returns the score's name and the result.

    Args:
      score: see `score_sums.SCORES`; "": the primary score of the first run.

    Raises:
      UserError: the runs were not scored on the same examples, or not in a way that can be compared.
    """
    results = [load_model.read_results(folder) for folder in (first, second)]
    kinds = [one["task"] for one in results]
    if kinds[0] != kinds[1]:
        raise UserError(f"{first} is a model for {kinds[0]}, {second} for {kinds[1]}; compare models of one task")
    score = score or results[0]["primary"]
    by_seed = [read_records(folder, split) for folder in (first, second)]
    seeds = min(map(len, by_seed))
    runs = [list(of_run.values())[:seeds] for of_run in by_seed]
    every = [records for run in runs for records in run]
    for records in every[1:]:
        _check_same(every[0], records, first, second)
    labels = sorted({label for records in every for label in _labels(kinds[0], records)})
    counted = [label for label in labels if label != results[0]["data"].get("negative")]
    of_first, of_second = (
        [score_sums.score_sums(kinds[0], score, records, labels, counted) for records in run] for run in runs
    )
    return score, compare_scores(of_first, of_second, resamples)


def compare_scores(
    first: list[ScoreSums], second: list[ScoreSums], resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compares the mean scores over the seeds of two systems on the same examples.

    Args:
      first, second: one entry per seed, the same number in both.
      resamples: of the bootstrap and of the randomization.
      seed: of the resamples.
    """
    assert len(first) == len(second)
    finish = first[0].finish
    a, b = (np.stack([one.of_example for one in seeds]) for seeds in (first, second))  # [seeds, examples, C]
    count = a.shape[1]
    score_a, score_b = (float(finish(x.sum(axis=1)).mean()) for x in (a, b))
    difference = score_b - score_a

    def differences(weights: np.ndarray, swap: bool) -> np.ndarray:
        """Returns the difference for each row of weights: of the examples, or 1 where an example is swapped."""
        if swap:
            change = np.einsum("rn,snc->rsc", weights, b - a)
            sums = [a.sum(axis=1) + change, b.sum(axis=1) - change]
        else:
            sums = [np.einsum("rn,snc->rsc", weights, x) for x in (a, b)]
        return finish(sums[1]).mean(axis=-1) - finish(sums[0]).mean(axis=-1)

    generator = np.random.default_rng(seed)
    chunks = [min(_CHUNK, resamples - begin) for begin in range(0, resamples, _CHUNK)]
    bootstrap = np.concatenate(
        [differences(generator.multinomial(count, np.full(count, 1 / count), size), False) for size in chunks]
    )
    exact = 2**count <= resamples
    swaps = (
        [np.array(list(itertools.product((0, 1), repeat=count)))]
        if exact
        else [generator.integers(0, 2, (size, count)) for size in chunks]
    )
    under_null = np.concatenate([differences(chosen.astype(np.float64), True) for chosen in swaps])
    as_large = int(np.sum(np.abs(under_null) >= abs(difference) - 1e-9))
    p_value = as_large / len(under_null) if exact else (as_large + 1) / (len(under_null) + 1)
    low, high = np.percentile(bootstrap, [2.5, 97.5]).tolist()
    return Comparison(score_a, score_b, difference, low, high, p_value, count, len(first))


def _labels(kind: str, records: list[dict[str, Any]]) -> set[str]:
    if kind in ("ner", "similarity", "qa"):
        return set()
    return {label for record in records for side in ("gold", "predicted") for label in record[side]}


def _check_same(these: list[dict[str, Any]], those: list[dict[str, Any]], first: str, second: str) -> None:
    """Raises UserError unless the records are of the same examples with the same gold labels."""
    if len(these) != len(those):
        raise UserError(
            f"{first} has {len(these):,} examples and {second} {len(those):,}; compare runs on the same file"
        )
    for one, other in zip(these, those, strict=True):
        if _identity(one) != _identity(other):
            raise UserError(
                f"{first} and {second} differ in the examples or their labels, first at "
                f"{json_values.shorten(_identity(one))}; compare runs on the same file"
            )


def _identity(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in _PLACE if name in record}
