"""`electramed recipes`: lists the recipes, or prints one."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from electramed_jax.config.recipes import Recipe

HELP = """Lists the recipes with their sizes, and the machine and hours of a run; prints the file of one.

  electramed recipes
  electramed recipes show pretrain_small
  electramed recipes show pretrain_small > mine.py       # a copy to edit, for --config=mine.py

A recipe is given by name from any folder: electramed pretrain --config=pretrain_small. Hours are the steps times the
seconds of a step, without start-up, validation and checkpoints."""
LIST, SHOW = ACTIONS = ("list", "show")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", default=LIST, choices=ACTIONS, help="default: list")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="name of a recipe, for show")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common import console
    from electramed_jax.common.errors import UserError
    from electramed_jax.config import recipes

    if args.action == SHOW:
        if not args.name:
            raise UserError(f"show needs the name of a recipe: {', '.join(recipes.list_recipes())}")
        recipe = recipes.find_recipe(args.name)
        with open(recipe.path, encoding="utf-8") as file:
            text = file.read()
        if not args.json:
            sys.stdout.write(text)
        console.say(f"# {recipe.path}")
        return {"name": recipe.name, "path": recipe.path, "text": text}
    found = [_describe(recipe) for recipe in recipes.list_recipes().values()]
    for line in _table(found):
        console.say(line)
    console.say(f"launchers for pods and clusters: {recipes.launchers_folder()}")
    return {"recipes": found, "folder": str(recipes.recipes_folder()), "launchers": str(recipes.launchers_folder())}


def _describe(recipe: Recipe) -> dict[str, Any]:
    """Returns the name, sizes, machine and hours of a recipe."""
    from electramed_jax.config import recipes

    settings = recipes.read_settings(recipe.path)
    described = {"name": recipe.name, "command": recipe.command, "summary": recipe.summary}
    described["batch_size"] = settings["batch_size"]
    if recipe.command == recipes.FINETUNE:
        return described | {"epochs": settings["epochs"]}
    return described | _describe_pretraining(recipe, settings)


def _describe_pretraining(recipe: Recipe, settings: dict[str, Any]) -> dict[str, Any]:
    import dataclasses

    from electramed_jax.commands.size_flags import SCIVOCAB
    from electramed_jax.config import pretrain as config_lib
    from electramed_jax.model.num_params import count_discriminator_params

    model = config_lib.from_dict(settings).model
    model = dataclasses.replace(model, vocab_size=model.vocab_size or SCIVOCAB)
    steps = settings["total_steps"]
    hours = None if recipe.step_seconds is None else round(steps * recipe.step_seconds / 3600, 1)
    return {
        "layers": model.num_layers,
        "width": model.hidden_size,
        "parameters": count_discriminator_params(model),
        "vocabulary": model.vocab_size,
        "steps": steps,
        "machine": recipe.machine,
        "hours": hours,
    }


def _table(found: list[dict[str, Any]]) -> list[str]:
    """Returns the lines of the table, and those that explain it."""
    from electramed_jax.common import markdown

    rows = []
    for one in found:
        if "epochs" in one:
            rows.append(
                [one["name"], "", "", f"{one['epochs']:g} epochs of {one['batch_size']} examples a step", "", ""]
            )
        else:
            size = f"{one['layers']} × {one['width']}"
            training = f"{one['steps']:,} steps of {one['batch_size']:,} rows"
            hours = "" if one["hours"] is None else f"{one['hours']:g}"
            rows.append([one["name"], size, f"{one['parameters'] / 1e6:.0f} M", training, hours, one["machine"]])
    vocabulary = next(one["vocabulary"] for one in found if "vocabulary" in one)
    return [
        *markdown.align(("recipe", "layers × width", "parameters", "training", "hours", "machine"), rows),
        "",
        f"Parameters are those of the discriminator with {vocabulary:,} tokens. electramed recipes show NAME has the "
        "source of the step time. Hours of fine-tuning depend on the corpus.",
    ]
