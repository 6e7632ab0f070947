"""The house stands: imports point downwards, data and model meet nowhere, heavy guests stay outside."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "electramed_jax"
NAME = PACKAGE.name
FLOORS = {
    "common": 0,
    "config": 1,
    "data": 2,
    "model": 2,
    "training": 3,
    "finetune": 4,
    "hf": 4,
    "report": 4,
    "commands": 5,
    "cli": 5,
}
DOORSTEP = {"commands", "cli"}  # quickstart runs the other commands through the very door a reader will use
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_rooms(path: pathlib.Path) -> set[str]:
    """Rooms that a module imports from anywhere in its text, inside functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {name[1] for name in parts if name[0] == NAME and len(name) > 1 and name[1] in FLOORS}


def test_every_room_has_a_floor():
    assert {room_of(path) for path in MODULES} - {"__init__"} <= FLOORS.keys()


@pytest.mark.parametrize("room", FLOORS)
def test_imports_point_downwards(room):
    for path in MODULES:
        if room_of(path) == room:
            for other in imported_rooms(path) - (DOORSTEP if room in DOORSTEP else {room}):
                assert FLOORS[other] < FLOORS[room], f"{path.relative_to(PACKAGE)} imports {other}"


def test_data_and_model_know_nothing_of_each_other():
    """They stand on one floor, and meet at the manifest and at the batch."""
    found = {(room_of(path), other) for path in MODULES for other in imported_rooms(path)}
    assert {("data", "model"), ("model", "data")}.isdisjoint(found)
    assert {("training", "data"), ("training", "model"), ("data", "common")} <= found, "the parser sees imports"


def test_no_module_is_called_utils():
    vague = {"util", "utils", "helper", "helpers", "misc", "tools"}
    assert [path for path in MODULES if path.stem in vague or path.parent.name in vague] == []


def imported_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after the statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_training_process_imports_neither_tensorflow_nor_torch():
    found = imported_by("from electramed_jax.commands import pretrain\nfrom electramed_jax.training import loop")
    assert {"jax", "orbax"} <= found
    assert found.isdisjoint({"tensorflow", "torch", "transformers", "tensorflow_datasets"})


def test_modules_of_data_do_not_start_jax_for_processes_that_only_read_text():
    assert "jax" not in imported_by("from electramed_jax.data import build, build_documents, tokenize, manifest")
