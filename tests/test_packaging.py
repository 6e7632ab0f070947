"""The sdist and the wheel: recipes, launchers and metadata; an installed wheel works from an empty folder."""

from __future__ import annotations

import email
import json
import os
import pathlib
import re
import subprocess
import tarfile
import zipfile

import distributions
import pytest
import quick

import electramed_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]
RECIPES = sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_file())
LAUNCHERS = sorted(path.name for path in (ROOT / "launch").iterdir() if path.is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    return distributions.build(tmp_path_factory.mktemp("built"))


def names_below(names: list[str], folder: str) -> list[str]:
    return sorted(name.removeprefix(folder) for name in names if name.startswith(folder) and not name.endswith("/"))


def test_the_sdist_has_the_folders_of_the_repository(built):
    with tarfile.open(built[0]) as archive:
        names = [member.name.partition("/")[2] for member in archive if member.isfile()]
    assert names_below(names, "configs/") == RECIPES and names_below(names, "launch/") == LAUNCHERS
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE", "electramed_jax/py.typed"} <= set(names)


def test_the_wheel_has_recipes_and_executable_launchers_inside_the_package(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
        mode = archive.getinfo("electramed_jax/launch/tpu_vm.sh").external_attr >> 16
    assert names_below(names, "electramed_jax/recipes/") == RECIPES
    assert names_below(names, "electramed_jax/launch/") == LAUNCHERS
    assert mode & 0o111
    assert "electramed_jax/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"electramed_jax", built[1].name.split("-py3")[0] + ".dist-info"}


def test_every_module_is_in_the_wheel(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "electramed_jax").rglob("*.py")} <= names


def test_the_metadata_has_licence_version_and_the_supported_pythons(built):
    with zipfile.ZipFile(built[1]) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(path))
    assert metadata["Version"] == electramed_jax.__version__
    assert metadata["License-Expression"] == "Apache-2.0" and metadata["License-File"] == "LICENSE"
    assert "pubmed" in metadata["Keywords"] and metadata["Requires-Python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier")
    assert metadata.get_all("Project-URL") == ["ELECTRAMed paper, https://arxiv.org/abs/2104.09585"]


@pytest.mark.slow
def test_quickstart_of_an_installed_wheel_runs_from_an_empty_folder_with_the_core_dependencies_alone(built, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    site_packages = distributions.install(built[1], tmp_path / "venv")

    def electramed(*arguments: str) -> dict:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["XLA_FLAGS"] = quick.FLAGS
        program = str(tmp_path / "venv" / "bin" / "electramed")
        done = subprocess.run(
            [program, *arguments, "--json"], cwd=empty, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]) | {"messages": done.stderr}

    listed = electramed("recipes")
    assert [f"{recipe['name']}.py" for recipe in listed["recipes"]] == [name for name in RECIPES if name != "README.md"]
    assert listed["folder"] == str(site_packages / "electramed_jax" / "recipes")
    assert listed["launchers"] == str(site_packages / "electramed_jax" / "launch")
    made = electramed("quickstart", "--articles=300", "--steps=8")
    assert made["page"] == "quickstart/replaced_words.html" and made["swapped_words"] > 0
    assert (empty / made["page"]).read_text().startswith("<!doctype html>")
    assert (empty / "quickstart" / "models" / "discriminator" / "model.safetensors").is_file()
    assert "pip install 'electramed_jax[report]' && electramed report quickstart/run" in made["messages"]
    assert [path.name for path in empty.iterdir()] == ["quickstart"]


def test_the_tests_run_with_pinned_versions_of_every_dependency():
    """A lock file per Python of .ci/run pins what setup.py names, each by an exact version."""
    required = set(re.findall(r'^ +"([\w-]+)(?:\[\w+\])?[<>=]', (ROOT / "setup.py").read_text(), re.MULTILINE))
    core = {"jax", "flax", "optax", "orbax-checkpoint", "tokenizers", "tensorflow-datasets", "numpy", "ml-collections"}
    for version in ("3.11", "3.13"):
        lines = (ROOT / "tests" / "support" / f"requirements-lock-{version}.txt").read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in pins)
        pinned = {line.partition("==")[0].lower().replace("_", "-") for line in pins}
        assert core <= pinned and "electramed-jax" not in pinned
    assert {"jax", "numpy"} <= required
