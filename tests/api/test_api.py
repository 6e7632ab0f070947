"""The Python interface: names that are imported when used, and the same settings and errors as the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import electramed_jax
from electramed_jax import api
from electramed_jax.api.settings import to_flags
from electramed_jax.common.errors import UserError
from electramed_jax.config import from_flags


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import electramed_jax; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded - {"electramed_jax", "__future__"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", electramed_jax._PLACES)
def test_every_public_name_is_documented_and_callable(name):
    value = getattr(electramed_jax, name)
    assert callable(value) and value.__doc__ and name in dir(electramed_jax)
    assert electramed_jax._load(name).__module__.startswith("electramed_jax.")


def test_a_missing_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = electramed_jax.train


def test_the_subpackages_are_modules_and_functions():
    """Also after a module inside was imported, which sets the attribute of the package."""
    from electramed_jax.pretrain import workdir

    assert electramed_jax.pretrain.workdir is workdir
    with pytest.raises(UserError, match="did you mean pretrain_small"):
        electramed_jax.pretrain("pretrain_smal", workdir="x")
    with pytest.raises(UserError, match="no encoder to start from"):
        electramed_jax.finetune("finetune_ner", workdir="x")


def test_settings_are_those_of_the_command_line():
    given = {"optimizer.learning_rate": 1e-4, "model": {"kernels": "auto", "scan_layers": True}, "seed": 3}
    config = from_flags(to_flags("pretrain_tiny", given))
    assert (config.optimizer.learning_rate, config.seed, config.model.scan_layers) == (1e-4, 3, True)
    with pytest.raises(UserError, match=r"config\.seeds: no such setting; did you mean config\.seed"):
        from_flags(to_flags("pretrain_tiny", {"seeds": 3}))


def test_settings_with_a_config_object_are_refused(run_config, tmp_path):
    with pytest.raises(TypeError, match=r"use dataclasses\.replace"):
        electramed_jax.pretrain(run_config, workdir=str(tmp_path), settings={"seed": 1})


def test_a_dataset_is_opened_by_its_folder(packed):
    dataset = electramed_jax.load_dataset(str(packed))
    assert dataset.num_rows("train")[0] == dataset.manifest.splits["train"].rows > 0
    assert api.__doc__
