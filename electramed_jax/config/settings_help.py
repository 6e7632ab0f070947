"""The settings of a command for its --help: name, value, unit and meaning, by group."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.config import recipes
from electramed_jax.config.fields import Setting, SettingGroup, list_groups
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.config.pretrain import Config

CLASSES = {recipes.PRETRAIN: Config, recipes.FINETUNE: FinetuneConfig}
# The settings that --help lists; --help-all lists all.
COMMON = {
    recipes.PRETRAIN: (
        "total_steps", "batch_size", "gradient_accumulation_steps", "seed", "log_every", "eval_every", "save_every",
        "max_to_keep", "init", "trackers", "data.directory", "data.weights", "optimizer.kind",
        "optimizer.learning_rate", "optimizer.warmup_steps", "objective.kind", "objective.mask_probability",
        "model.num_layers", "model.hidden_size", "model.max_positions", "model.kernels", "mesh.fsdp",
    ),
    recipes.FINETUNE: (
        "init", "seeds", "epochs", "batch_size", "log_every", "trackers", "task.kind", "task.corpus", "task.data",
        "task.train", "task.dev", "task.test", "task.max_seq_length", "optimizer.learning_rate",
        "optimizer.layerwise_lr_decay", "optimizer.warmup_fraction",
    ),
}  # fmt: skip
WIDTH = 120  # columns
_NAME, _VALUE = 34, 22  # columns of name and value


def list_names(command: str) -> list[str]:
    """Returns the dotted names of all settings of a command, "pretrain" or "finetune"."""
    return [one.name for group in list_groups(CLASSES[command]) for one in group.settings]


def settings_help(command: str, arguments: Sequence[str], *, all_settings: bool) -> str:
    """Returns the section of the settings, with the values of the recipe if one is given.

    Args:
      command: "pretrain" or "finetune".
      arguments: command-line arguments; `--config=NAME` selects the values.
      all_settings: list every setting with its range, instead of the common ones.

    Raises:
      UserError: no such recipe.
    """
    given = [a for a in recipes.resolve_flags(arguments, command) if a.startswith("--config=")]
    values = config_io.flatten(recipes.read_settings(given[-1].removeprefix("--config="))) if given else {}
    source = f"those of {given[-1].removeprefix('--config=')}" if given else "the defaults, which a recipe may change"
    groups = list_groups(CLASSES[command])
    count = sum(len(group.settings) for group in groups)
    shown = f"all {count}" if all_settings else f"the common ones of {count}; --help-all lists all, with their ranges"
    lines = [f"settings, each changed by --config.NAME=VALUE: {shown}", f"values: {source}"]
    for group in groups:
        rows = [one for one in group.settings if all_settings or one.name in COMMON[command]]
        if rows:
            lines += ["", *_group_heading(group)]
            for one in rows:
                lines += _setting_lines(one, values.get(one.name, one.default), with_range=all_settings)
    return "\n".join(lines)


def _group_heading(group: SettingGroup) -> list[str]:
    return [f"  {group.name}: {group.help}"] if group.name else []


def _setting_lines(one: Setting, value: Any, *, with_range: bool) -> list[str]:
    text = f"{value:g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value) or '""'
    unit = f" {one.unit}" if one.unit and not isinstance(value, str) else ""
    left = f"  {one.name:<{_NAME}} {text + unit:<{_VALUE}}"
    meaning = one.help + (f" ({one.constraint.wanted})" if with_range and one.constraint else "")
    indent = " " * (_NAME + _VALUE + 5)
    if len(left) > len(indent) - 2:
        return [left, *textwrap.wrap(meaning, WIDTH, initial_indent=indent, subsequent_indent=indent)]
    return textwrap.wrap(meaning, WIDTH, initial_indent=left.ljust(len(indent)), subsequent_indent=indent)
