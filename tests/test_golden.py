"""Golden files of the resolved settings and of every parameter of each config."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
import quick

from electramed_jax.common import tree_rules
from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.pretrain.state import init_params
from electramed_jax.training import sharding
from electramed_jax.training.optimizers import optimizer

HERE = pathlib.Path(__file__).resolve().parent
ROW_LENGTHS = {
    "pretrain_tiny": 128,
    "pretrain_small": 128,
    "pretrain_base": 512,
    "pretrain_large": 512,
    "electramed_base": 512,
}
SCIVOCAB = 31_090


def resolved(name: str) -> Config:
    """Returns the config resolved with SciVocab."""
    config = config_lib.from_flags([f"--config={HERE.parent / 'configs' / name}.py"])
    return config_lib.resolve(config, vocab_size=SCIVOCAB, max_seq_length=ROW_LENGTHS[name], special=SpecialIds())


def config_text(config: Config) -> str:
    derived = {
        "max_predictions": config.max_predictions,
        "padded_vocab_size": config.model.padded_vocab_size,
        "generator": dataclasses.asdict(config.model.generator),
    }
    return json.dumps(config_lib.to_dict(config) | {"derived": derived}, indent=2) + "\n"


def params_text(config: Config, *, measured: bool) -> str:
    """Returns one line per parameter: name, dtype and shape, axes, weight decay, and initial values if `measured`."""
    shapes = tree_rules.named_leaves(jax.eval_shape(lambda: init_params(config)))
    values = tree_rules.named_leaves(quick.jit(lambda: init_params(config))()) if measured else {}
    lines = []
    for name, leaf in shapes.items():
        axes = ", ".join(axis or "-" for axis in sharding.PARAM_RULES(name).axes)
        decay = "decays" if optimizer.DECAY_RULES(name) else "no decay"
        shape = f"{leaf.dtype}[{', '.join(map(str, leaf.shape))}]"
        start = f"   {describe_initial(values[name])}" if measured else ""
        lines.append(f"{name:<52} {shape:<28} {f'({axes})':<40} {decay}{start}")
    total = sum(leaf.size for leaf in shapes.values())
    return "\n".join([*lines, f"{total:,} parameters"]) + "\n"


def describe_initial(leaf: jax.Array) -> str:
    values = np.asarray(leaf)
    if values.min() == values.max():
        return f"all {values.flat[0]:g}"
    assert abs(values.mean()) < values.std() / 5, "a new kind of initial values: describe it here"
    return f"mean 0, standard deviation {values.std():.2g}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["config", "params"])
@pytest.mark.parametrize("name", ROW_LENGTHS)
def test_settings_and_parameters_equal_the_golden_file(name, kind):
    config = resolved(name)
    text = config_text(config) if kind == "config" else params_text(config, measured=name == "pretrain_tiny")
    path = HERE / "golden" / f"{name}.{kind}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; write it with UPDATE_GOLDEN=1 pytest {__file__}"
    golden = path.read_text(encoding="utf-8")
    if text != golden:
        pytest.fail(
            f"{path.name} differs:\n{difference(golden, text)}\n"
            f"If the change is intended, write the new file with UPDATE_GOLDEN=1 pytest {__file__}, check git diff, "
            "and give the reason in the commit message; otherwise fix the change.",
            pytrace=False,
        )


def difference(golden: str, text: str) -> str:
    import difflib

    lines = difflib.unified_diff(golden.splitlines(), text.splitlines(), "golden", "now", n=0, lineterm="")
    return "\n".join(lines)


def test_every_config_has_golden_files():
    configs = {path.stem for path in (HERE.parent / "configs").glob("*.py") if "pretrain" in path.stem}
    assert configs | {"electramed_base"} == ROW_LENGTHS.keys()
    files = {f"{name}.{kind}.txt" for name in ROW_LENGTHS for kind in ("config", "params")}
    assert {path.name for path in (HERE / "golden").glob("*.txt")} == files
