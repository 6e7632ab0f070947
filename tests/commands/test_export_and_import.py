"""A checkpoint becomes Hugging Face folders, and such a folder the start of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
import quick
import saved_run

from electramed_jax import cli
from electramed_jax import config as config_lib
from electramed_jax.common.errors import UserError
from electramed_jax.common.trees import named_leaves
from electramed_jax.hf import convert, start
from electramed_jax.training import loop
from electramed_jax.training import state as state_lib


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> str:
    return saved_run.pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def exported(packed, tmp_path_factory):
    """(folder, config and parameters it was exported from)."""
    workdir, folder = (tmp_path_factory.mktemp(name) for name in ("run", "exported"))
    config, params = saved_run.save(packed, workdir)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        options = [f"--workdir={workdir}", f"--output={folder}", "--license=mit", "--json"]
        assert cli.main(["export", *options]) == 0
    assert json.loads(output.getvalue()) == {
        "workdir": str(workdir),
        "step": 3,
        "discriminator": f"{folder}/discriminator",
        "generator": f"{folder}/generator",
    }
    return folder, config, params


def test_export_writes_both_networks_with_the_checkpoint_s_parameters(exported):
    folder, config, params = exported
    imported = convert.import_folder(str(folder))
    assert dataclasses.replace(config.model, **imported.dimensions) == config.model
    after = named_leaves(imported.params)
    for name, leaf in named_leaves(params).items():
        real = config.model.vocab_size if name.endswith(("/word", "output_bias")) else len(leaf)
        np.testing.assert_array_equal(after[name][:real], leaf[:real], err_msg=name)


def test_the_card_tells_the_data_the_recipe_and_the_last_validation_before_the_step(exported):
    folder, config, _ = exported
    text = (folder / "discriminator" / "README.md").read_text()
    assert 'license: "mit"' in text
    assert "| source files | 1 |" in text
    assert f"| vocabulary | {config.model.vocab_size} |" in text
    assert "| steps | 3 of 1,000,000 |" in text
    assert "| measured at step | 2 |\n| discriminator_auc | 0.25 |" in text


@pytest.mark.parametrize(
    "kind, tying, networks",
    [("uniform", "embeddings", ["discriminator"]), ("mlm", "all", ["generator"])],
)
def test_only_a_network_that_was_trained_is_exported(packed, tmp_path, kind, tying, networks):
    saved_run.save(packed, tmp_path / "run", kind, tying)
    assert cli.main(["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf"]) == 0
    assert [path.name for path in (tmp_path / "hf").iterdir()] == networks


def test_an_imported_pair_starts_a_run_with_its_own_parameters(exported, packed, tmp_path):
    folder, _, params = exported
    config_file = tmp_path / "continued.py"
    code = cli.main(["import", f"--input={folder}", f"--data={packed}", f"--output={config_file}"])
    assert code == 0
    config = loop.resolve_with_dataset(config_lib.from_flags([f"--config={config_file}"]))
    assert config.init == str(folder)
    assert config.model.hidden_size == 16
    started = named_leaves(start.params_for(config, config.init))
    for name, leaf in named_leaves(params).items():
        real = config.model.vocab_size if name.endswith(("/word", "output_bias")) else len(leaf)
        np.testing.assert_array_equal(started[name][:real], leaf[:real], err_msg=name)


def test_a_discriminator_by_itself_starts_a_run_with_a_fresh_generator(exported, packed, tmp_path):
    folder, _, params = exported
    alone = f"{folder}/discriminator"
    config_file = tmp_path / "continued.py"
    cli.main(["import", f"--input={alone}", f"--data={packed}", f"--output={config_file}"])
    config = loop.resolve_with_dataset(config_lib.from_flags([f"--config={config_file}"]))
    started = start.params_for(config, config.init)
    fresh = quick.jit(lambda: state_lib.init_params(config))()
    kernel = "discriminator/head/dense/kernel"
    np.testing.assert_array_equal(named_leaves(started)[kernel], named_leaves(params)[kernel])
    drawn = named_leaves(started["generator"])
    for name, leaf in named_leaves(fresh["generator"]).items():
        np.testing.assert_allclose(drawn[name], leaf, rtol=0, atol=1e-6, err_msg=name)


def test_a_run_of_other_sizes_is_told_the_settings_that_fit(exported, packed):
    folder, config, _ = exported
    wider = dataclasses.replace(config.model, hidden_size=32, generator_num_layers=2)
    with pytest.raises(UserError) as error:
        start.params_for(dataclasses.replace(config, model=wider), str(folder))
    assert "--config.model.hidden_size=16 --config.model.generator_num_layers=1" in str(error.value)


def test_a_folder_of_another_vocabulary_is_refused(exported, packed, tmp_path):
    folder = tmp_path / "other"
    (tmp_path / "other").mkdir()
    for path in (exported[0] / "discriminator").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokens = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join([*tokens[:-1], "other"]) + "\n")
    output = f"--output={tmp_path}/c.py"
    assert cli.main(["import", f"--input={folder}", f"--data={packed}", output]) == 2
    assert not (tmp_path / "c.py").exists()
    with pytest.raises(UserError, match="vocabulary is not that of"):
        start.check_vocabulary(str(folder), convert.import_folder(str(folder)), packed)


def test_a_cased_model_does_not_go_on_with_lower_cased_text(exported, packed, tmp_path):
    folder = exported[0] / "discriminator"
    imported = dataclasses.replace(convert.import_folder(str(folder)), lower_case=False)
    with pytest.raises(UserError, match="model of cased text.*pack the text again with --cased"):
        start.check_vocabulary(str(folder), imported, packed)


def test_a_generator_alone_is_no_start(exported):
    imported = convert.import_folder(str(exported[0] / "generator"))
    with pytest.raises(UserError, match="wanted a discriminator"):
        start.model_settings("folder", imported)
