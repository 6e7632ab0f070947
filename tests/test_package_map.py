"""electramed_jax/README.md shows the tree as it is."""

from __future__ import annotations

import re

import package_map
import pytest
from import_graph import PACKAGE

TEXT = package_map.README.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_generated_parts_are_up_to_date():
    assert package_map.updated(TEXT) == TEXT, "run python tests/support/package_map.py"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([a-z_]+/[\w/.]+)`", TEXT))))
def test_every_path_exists(path):
    """Paths are relative to the package; those of configs/ and tests/ to the repository."""
    folder = PACKAGE.parent if path.startswith(("configs/", "tests/")) else PACKAGE
    assert (folder / path).exists()


@pytest.mark.parametrize(("name", "path"), re.findall(r"`(\w+)` in `([\w/.]+)`", TEXT))
def test_every_named_definition_exists(name, path):
    assert re.search(rf"^(def |class )?{name}\b", (PACKAGE / path).read_text(), re.MULTILINE)


def test_every_folder_has_a_summary_of_one_line():
    for init in PACKAGE.rglob("__init__.py"):
        assert 20 < len(package_map.summary(init)) <= 120, init
