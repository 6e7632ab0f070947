"""The API reference builds from every docstring without warnings."""

from __future__ import annotations

import warnings

import api_reference
import pytest


@pytest.mark.slow
def test_the_api_reference_is_built_from_every_module_without_a_warning(tmp_path):
    api_reference.build(tmp_path)
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    assert {
        "electramed_jax.html",
        "electramed_jax/data/packing/pack.html",
        "electramed_jax/commands/import_.html",
    } <= pages
    page = (tmp_path / "electramed_jax" / "pretrain" / "evaluate.html").read_text()
    assert ">Arguments:<" in page, "Args: is a list, not running text"


def test_a_warning_of_pdoc_stops_the_build(tmp_path, monkeypatch):
    def warn(*_: object, **__: object) -> None:
        warnings.warn_explicit("bad", UserWarning, "pdoc.py", 1, module="pdoc.doc")

    monkeypatch.setattr("pdoc.pdoc", warn)
    with pytest.raises(UserWarning, match="bad"):
        api_reference.build(tmp_path, "electramed_jax.common.errors")
