"""The reference of the code has a page for every module; `.docs/build`, which .ci/run calls, builds it without warnings."""

from __future__ import annotations

import pathlib
import warnings

import api_reference
import pytest

import electramed_jax


@pytest.mark.slow
def test_every_module_has_a_page_also_where_its_package_does_not_export_it(monkeypatch):
    extract = pytest.importorskip("pdoc.extract")
    monkeypatch.setenv("PDOC_ALLOW_EXEC", "1")
    pages = set(extract.walk_specs(api_reference.list_modules()))
    folder = pathlib.Path(electramed_jax.__path__[0])
    files = {".".join(path.relative_to(folder.parent).with_suffix("").parts) for path in folder.rglob("*.py")}
    missing = {file.removesuffix(".__init__") for file in files} - pages
    assert {module for module in missing if "examples" not in module and "__main__" not in module} == set()


def test_a_warning_of_pdoc_stops_the_build(tmp_path, monkeypatch):
    def warn(*_: object, **__: object) -> None:
        warnings.warn_explicit("bad", UserWarning, "pdoc.py", 1, module="pdoc.doc")

    monkeypatch.setattr("pdoc.pdoc", warn)
    with pytest.raises(UserWarning, match="bad"):
        api_reference.build(tmp_path, "electramed_jax.common.errors")


def test_arguments_of_a_docstring_are_a_list(tmp_path):
    api_reference.build(tmp_path, "electramed_jax.common.storage.http_client")
    assert ">Arguments:<" in (tmp_path / "electramed_jax" / "common" / "storage" / "http_client.html").read_text()
