"""The example of the Python interface runs from text to entities."""

from __future__ import annotations

import pathlib
import re
import runpy

import jax
import pytest
import quick

import electramed_jax

EXAMPLE = pathlib.Path(electramed_jax.__file__).parent / "examples" / "text_to_entities.py"


@pytest.mark.slow
def test_the_example_finds_entities_of_both_types(tmp_path, monkeypatch, capsys):
    """Runs all cells in one process in an empty folder, as a notebook would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jax, "jit", quick.jit)
    values = runpy.run_path(str(EXAMPLE))
    assert values["score"] > 60, "far above chance after a few steps"
    assert {kind for _, kind, _ in values["entities"]} == {"Drug", "Disease"}
    assert (tmp_path / "text-to-entities" / "models" / "discriminator" / "model.safetensors").exists()
    assert "F1 on test: " in capsys.readouterr().out


def test_every_step_is_a_cell_with_a_heading():
    text = EXAMPLE.read_text()
    assert [int(number) for number in re.findall(r"^# %% \[markdown\]\n# ## (\d)\.", text, re.MULTILINE)] == [
        *range(1, 7)
    ]
    assert text.startswith('# %% [markdown]\n"""From text to entities')
