"""Trains every combination of a grid of settings, and compares them on dev. The test split is left alone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.common import markdown
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.config import finetune as config_lib
from electramed_jax.finetune import stages
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.task.task import DEV

TABLE_FILE, RESULTS_FILE = "sweep.md", "sweep.json"
Setting = dict[str, str]
_TEST_OFF = "--config.score_test=False"


def parse_grid(given: Sequence[str]) -> list[Setting]:
    """Returns all combinations of NAME=VALUE,VALUE: the first name varies slowest.

    Raises:
      UserError: an entry has no name or no value, or a name occurs twice.
    """
    values: dict[str, list[str]] = {}
    for entry in given:
        name, _, listed = entry.partition("=")
        name = name.removeprefix("config.")
        found = [value.strip() for value in listed.split(",") if value.strip()]
        if not name or not found or name in values:
            raise UserError(f"--grid {entry}: wanted NAME=VALUE,VALUE with each name once, such as epochs=3,5")
        values[name] = found
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def run_sweep(arguments: Sequence[str], grid: Sequence[Setting], sweep_folder: str) -> list[dict[str, Any]] | None:
    """Trains each combination in a folder of its own, and writes sweep.md and sweep.json after each.

    A combination that is finished is not trained again.

    Args:
      arguments: settings that all combinations share, `--config...`.
      grid: from `parse_grid`.

    Returns:
      A row per combination, the best first; None if SIGTERM ended it, after a save.

    Raises:
      UserError: a setting of a combination is wrong; all are checked before the first is trained.
    """
    configs = [config_lib.from_flags([*arguments, *_flags(setting), _TEST_OFF]) for setting in grid]
    rows: list[dict[str, Any]] = []
    for number, (setting, config) in enumerate(zip(grid, configs, strict=True), 1):
        folder = files.join(sweep_folder, _folder_name(setting))
        log_main(f"combination {number} of {len(grid)}: {_describe(setting)}")
        outcome = stages.run_stages(config, load_init_encoder(config), folder)
        if outcome.preempted:
            return None
        rows.append(_row(setting, folder, outcome.results))
        rows.sort(key=lambda row: -row["mean"])
        if distributed.is_main():
            files.write_json(files.join(sweep_folder, RESULTS_FILE), {"rows": rows, "combinations": len(grid)})
            files.write_text(files.join(sweep_folder, TABLE_FILE), to_markdown(rows, len(grid)))
    return rows


def to_markdown(rows: Sequence[Mapping[str, Any]], combinations: int) -> str:
    """Returns the text of sweep.md."""
    primary, names = rows[0]["primary"], list(rows[0]["settings"])
    table = [
        [
            *(row["settings"][name] for name in names),
            f"{row['mean']:.2f}" + (f" ± {row['standard_deviation']:.2f}" if row["seeds"] > 1 else ""),
            f"{row['best_epoch']:.2f}",
            f"{row['train_seconds']:.0f}",
        ]
        for row in rows
    ]
    head = [*names, f"dev {primary}", "best epoch", "seconds of training"]
    return "\n".join(
        [
            "# Sweep",
            "",
            f"{len(rows)} of {combinations} combinations; seeds each: {rows[0]['seeds']}; mean ± standard deviation. "
            "The test split was not scored. The dev score of the best combination is too high, because it was chosen "
            "by it: train it again with config.score_test=True for a test score.",
            "",
            markdown.table(head, table),
            "",
            f"The best: `{' '.join(_flags(rows[0]['settings']))}`",
            "",
        ]
    )


def _row(setting: Setting, folder: str, results: Mapping[str, Any]) -> dict[str, Any]:
    score, runs = results["scores"][DEV][results["primary"]], results["runs"]
    return {
        "settings": setting,
        "workdir": folder,
        "primary": results["primary"],
        **score,
        "seeds": len(runs),
        "best_epoch": sum(run["best_epoch"] for run in runs) / len(runs),
        "train_seconds": sum(run["train_seconds"] for run in runs),
    }


def _flags(setting: Setting) -> list[str]:
    return [f"--config.{name}={value}" for name, value in setting.items()]


def _describe(setting: Setting) -> str:
    return ", ".join(f"{name}={value}" for name, value in setting.items())


def _folder_name(setting: Setting) -> str:
    """Returns "optimizer.learning_rate=1e-4,epochs=3": the name of the folder of a combination."""
    return ",".join(re.sub(r"[^\w.=+-]", "_", f"{name}={value}") for name, value in setting.items())
