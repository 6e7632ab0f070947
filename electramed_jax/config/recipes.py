"""Recipes: the config files of configs/, which an installed package contains, by name or by path.

A recipe is a Python file with a docstring and `get_config`. Recipes of pre-training may add two constants, from which
`electramed recipes` computes hours:

    MACHINE = "v5e:4x4"
    STEP_SECONDS = 0.055  # on this machine
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import os
import pathlib
import runpy
from collections.abc import Sequence
from typing import Any

from electramed_jax.common.errors import UserError

PRETRAIN, FINETUNE = "pretrain", "finetune"
_FLAG = "--config="
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A config file.

    Attributes:
      name: the name of the file, without .py.
      path: of the file.
      command: "pretrain" or "finetune"; the file names of the latter begin so.
      summary: first line of the docstring.
      machine: that of the step time; "" if the file gives none.
      step_seconds: seconds of a step on that machine; None if the file gives none.
    """

    name: str
    path: str
    command: str
    summary: str
    machine: str
    step_seconds: float | None


def recipes_folder() -> pathlib.Path:
    """Returns the folder of the recipes: inside an installed package, or configs/ of a clone."""
    return _find_folder("recipes", "configs")


def launchers_folder() -> pathlib.Path:
    """Returns the folder of the launchers: inside an installed package, or launch/ of a clone."""
    return _find_folder("launch", "launch")


def _find_folder(installed: str, in_clone: str) -> pathlib.Path:
    folder = _PACKAGE / installed
    return folder if folder.is_dir() else _PACKAGE.parent / in_clone


@functools.cache
def list_recipes() -> dict[str, Recipe]:
    """Returns all recipes by name, in alphabetical order."""
    return {path.stem: _read(path) for path in sorted(recipes_folder().glob("*.py"))}


def find_recipe(name: str) -> Recipe:
    """Returns a recipe.

    Raises:
      UserError: no recipe has the name; suggests the nearest one.
    """
    recipes = list_recipes()
    if name not in recipes:
        raise UserError(f"{name}: no such recipe{_suggest(name)}; wanted one of {', '.join(recipes)}")
    return recipes[name]


def read_settings(path: str) -> dict[str, Any]:
    """Returns the nested settings that `get_config` of a config file returns."""
    return runpy.run_path(path)["get_config"]().to_dict()


def resolve_flags(arguments: Sequence[str], command: str) -> list[str]:
    """Returns the arguments with the path of a recipe in place of its name in `--config=NAME`; a path is kept.

    Args:
      arguments: command-line arguments.
      command: "pretrain" or "finetune": the kind of settings that is wanted.

    Raises:
      UserError: neither a file nor a recipe, or a recipe of the other kind; lists the recipes of this one.
    """
    return [
        _FLAG + _find_config(argument.removeprefix(_FLAG), command) if argument.startswith(_FLAG) else argument
        for argument in arguments
    ]


def _find_config(name: str, command: str) -> str:
    if os.path.isfile(name):
        return name
    recipes = list_recipes()
    known = ", ".join(one.name for one in recipes.values() if one.command == command)
    if name not in recipes:
        raise UserError(
            f"config={name}: no such config file or recipe{_suggest(name)}; wanted a path, or one of {known}"
        )
    if recipes[name].command != command:
        raise UserError(f"config={name}: a recipe of electramed {recipes[name].command}; wanted one of {known}")
    return recipes[name].path


def _suggest(name: str) -> str:
    """Returns " (did you mean NAME?)" for the recipe with the nearest name, also for a path that ends in one."""
    near = difflib.get_close_matches(pathlib.PurePath(name).stem, list_recipes(), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _read(path: pathlib.Path) -> Recipe:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants: dict[str, Any] = {
        node.targets[0].id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    return Recipe(
        name=path.stem,
        path=str(path),
        command=FINETUNE if path.stem.startswith(FINETUNE) else PRETRAIN,
        summary=(ast.get_docstring(tree) or "").partition("\n")[0],
        machine=constants.get("MACHINE", ""),
        step_seconds=constants.get("STEP_SECONDS"),
    )
