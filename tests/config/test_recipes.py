"""Recipes are found by name from any folder; `electramed recipes` lists sizes and hours."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from run_command import run_command

from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune, from_flags, recipes
from electramed_jax.config.presets import PRESETS
from electramed_jax.model.num_params import count_discriminator_params

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_a_name_and_the_path_of_its_file_give_the_same_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_path = from_flags([f"--config={ROOT / 'configs' / 'electramed_base.py'}"])
    assert from_flags(["--config=electramed_base"]) == by_path and by_path.model.vocab_size == 31_090
    assert finetune.from_flags(["--config=finetune_qa", "--config.init=x"]).task.kind == "qa"


def test_a_file_of_the_working_folder_comes_before_a_recipe_of_the_same_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "from electramed_jax.config import preset\ndef get_config():\n    c = preset('tiny')\n    c.seed = 7\n    return c\n"
    (tmp_path / "pretrain_tiny.py").write_text(text)
    assert from_flags(["--config=pretrain_tiny.py"]).seed == 7 and from_flags(["--config=pretrain_tiny"]).seed == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "pretrain_smal",
            "no such config file or recipe (did you mean pretrain_small?); wanted a path, or one of elect",
        ),
        ("somewhere/pretrain_tiny.py", "(did you mean pretrain_tiny?)"),
        ("xyzzy.py", "no such config file or recipe; wanted a path"),
        ("finetune_ner", "a recipe of electramed finetune; wanted one of electramed_base, pretrain_base"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_one(name, message):
    with pytest.raises(UserError) as caught:
        from_flags([f"--config={name}"])
    assert str(caught.value).startswith(f"config={name}: ") and message in str(caught.value)


@pytest.mark.parametrize("size", PRESETS)
def test_the_listed_parameters_are_those_of_the_golden_file(size):
    """The golden file lists every array of the discriminator that a run creates."""
    listed = (ROOT / "tests" / "golden" / f"pretrain_{size}.params.txt").read_text()
    rows = re.findall(r"^(?:discriminator|embeddings)/\S+ +float32\[([\d, ]+)\]", listed, re.MULTILINE)
    expected = 0
    for row in rows:
        product = 1
        for length in row.split(","):
            product *= int(length)
        expected += product
    resolved = json.loads((ROOT / "tests" / "golden" / f"pretrain_{size}.config.txt").read_text())
    model = PRESETS[size].model.__class__(**resolved["model"])
    assert count_discriminator_params(model) == expected > 1e6


def test_the_listed_step_times_are_those_of_the_docstrings():
    """The docstring has the table of the compiler's estimates; hours are computed from the constants below it."""
    timed = [recipe for recipe in recipes.list_recipes().values() if recipe.step_seconds is not None]
    assert len(timed) >= 4
    for recipe in timed:
        docstring = pathlib.Path(recipe.path).read_text().split('"""')[1]
        described = re.search(rf"{re.escape(recipe.machine)}\b.*?([\d.]+) ms", docstring, re.DOTALL)
        assert described and float(described[1]) == pytest.approx(1000 * recipe.step_seconds), recipe.name


def test_the_listing_has_every_recipe_and_show_prints_a_file_that_works(tmp_path, capsys):
    listed = run_command("recipes")["recipes"]
    assert {one["name"] for one in listed} == {path.stem for path in (ROOT / "configs").glob("*.py")}
    base = next(one for one in listed if one["name"] == "electramed_base")
    assert (base["steps"], base["machine"], base["hours"]) == (1_000_000, "v5e:4x4", 14.4)
    capsys.readouterr()
    from electramed_jax import cli

    assert cli.main(["recipes", "show", "pretrain_small"]) == 0
    (tmp_path / "mine.py").write_text(capsys.readouterr().out)
    assert from_flags([f"--config={tmp_path / 'mine.py'}"]) == from_flags(["--config=pretrain_small"])
