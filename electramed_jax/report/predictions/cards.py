"""Cards of the report about the predictions of a fine-tuned model: confusion matrix and list of errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.page.markup import Markup
from electramed_jax.finetune.analysis import compare
from electramed_jax.finetune.task.task import DEV
from electramed_jax.report.predictions import confusion, error_list


def prediction_cards(name: str, workdir: str, results: Mapping[str, Any]) -> list[Markup]:
    """Returns the cards of the seed with the best dev score, on dev: errors on test would tune a model to it.

    Args:
      name: of the run, for the titles.
      workdir: of `electramed finetune`.
      results: content of results.json.

    Raises:
      UserError: the run has no records of its predictions, or they are damaged.
    """
    kind, primary = results["task"], results["primary"]
    scores = {run["seed"]: run[DEV][primary] for run in results["runs"]}
    seed = max(scores, key=lambda number: scores[number])
    records = compare.read_records(workdir, DEV)[seed]
    where = f"seed {seed} on dev"
    try:
        pairs, wrong = confusion.count_pairs(kind, records), error_list.wrong_examples(kind, records)
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{workdir}: the records of {where} are not those of {kind} ({first_line(error)}); restore them, or remove "
            "the folder of the seed and run the same electramed finetune command again"
        ) from error
    matrix = [confusion.render(pairs, f"{name}: confusion matrix, {where}")] if pairs else []
    return [*matrix, error_list.render(wrong, len(records), f"{name}: errors, {where}")]
