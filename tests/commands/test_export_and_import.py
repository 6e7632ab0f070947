"""`electramed export` writes Hugging Face folders; `electramed import` starts a run from such a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib

import hub_server
import numpy as np
import pytest
import quick
import quick_run
import saved_run

from electramed_jax import cli
from electramed_jax.common.errors import UserError
from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config import pretrain as config_lib
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.hf import convert, initialize
from electramed_jax.pretrain import loop, state

pytestmark = pytest.mark.slow  # each test needs an exported run


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> str:
    return saved_run.pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def exported(packed, tmp_path_factory):
    """(folder, config and parameters that it was exported from)."""
    workdir, folder = (tmp_path_factory.mktemp(name) for name in ("run", "exported"))
    config, params = saved_run.save(packed, workdir)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        options = [
            f"--workdir={workdir}",
            f"--output={folder}",
            "--license=mit",
            "--base_model=someone/electra",
            "--json",
        ]
        assert cli.main(["export", *options]) == 0
    assert json.loads(output.getvalue()) == {
        "workdir": str(workdir),
        "step": 3,
        "discriminator": f"{folder}/discriminator",
        "generator": f"{folder}/generator",
    }
    return folder, config, params


def test_export_writes_both_networks_with_the_parameters_of_the_checkpoint(exported):
    folder, config, params = exported
    imported = convert.import_folder(str(folder))
    assert dataclasses.replace(config.model, **imported.model_settings()) == config.model
    after = named_leaves(imported.params)
    for name, leaf in named_leaves(params).items():
        real = config.model.vocab_size if name.endswith(("/word", "output_bias")) else len(leaf)
        np.testing.assert_array_equal(after[name][:real], leaf[:real], err_msg=name)


def test_the_card_contains_the_data_the_recipe_and_the_last_validation_before_the_step(exported):
    folder, config, _ = exported
    text = (folder / "discriminator" / "README.md").read_text()
    assert "license: mit\n" in text and "base_model: someone/electra\n" in text
    assert "| source files | 1 |" in text
    assert "![generator_loss.png](generator_loss.png)" in text and "## Citation" in text
    assert f"| vocabulary | {config.model.vocab_size} |" in text
    assert "| steps | 3 of 1,000,000 |" in text
    assert "| measured at step | 2 |\n| discriminator_auc | 0.25 |" in text


@pytest.mark.parametrize(
    "kind, tying, networks",
    [("uniform", "embeddings", ["discriminator"]), ("mlm", "all", ["generator"])],
)
def test_only_trained_networks_are_exported(packed, tmp_path, kind, tying, networks):
    saved_run.save(packed, tmp_path / "run", kind, tying)
    assert cli.main(["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf"]) == 0
    assert [path.name for path in (tmp_path / "hf").iterdir()] == networks


def test_a_network_of_another_export_is_not_left_beside_a_new_one(packed, tmp_path, capsys):
    """The two would open as a pair that was never trained together."""
    saved_run.save(packed, tmp_path / "pair")
    saved_run.save(packed, tmp_path / "alone", "uniform", "embeddings")
    assert cli.main(["export", f"--workdir={tmp_path}/pair", f"--output={tmp_path}/hf"]) == 0
    config = (tmp_path / "hf" / "discriminator" / "config.json").read_bytes()
    assert cli.main(["export", f"--workdir={tmp_path}/alone", f"--output={tmp_path}/hf"]) == 2
    assert "holds the generator of another model" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "hf" / "discriminator" / "config.json").read_bytes() == config, "nothing was written"


def test_an_imported_pair_starts_a_run_with_its_own_parameters(exported, packed, tmp_path):
    folder, _, params = exported
    config_file = tmp_path / "continued.py"
    code = cli.main(["import", f"--input={folder}", f"--data={packed}", f"--output={config_file}"])
    assert code == 0
    config, dataset = loop.resolve_with_dataset(config_lib.from_flags([f"--config={config_file}"]))
    assert config.init == f"hf:{folder}"
    assert config.model.hidden_size == 16
    started = named_leaves(initialize.init_params_from_hf(config, dataset, str(tmp_path / "run")))
    for name, leaf in named_leaves(params).items():
        real = config.model.vocab_size if name.endswith(("/word", "output_bias")) else len(leaf)
        np.testing.assert_array_equal(started[name][:real], leaf[:real], err_msg=name)


def test_a_discriminator_alone_starts_a_run_with_a_new_generator(exported, packed, tmp_path):
    folder, _, params = exported
    alone = f"{folder}/discriminator"
    config_file = tmp_path / "continued.py"
    cli.main(["import", f"--input={alone}", f"--data={packed}", f"--output={config_file}"])
    config, dataset = loop.resolve_with_dataset(config_lib.from_flags([f"--config={config_file}"]))
    started = initialize.init_params_from_hf(config, dataset, str(tmp_path / "run"))
    fresh = quick.jit(lambda: state.init_params(config))()
    kernel = "discriminator/head/dense/kernel"
    np.testing.assert_array_equal(named_leaves(started)[kernel], named_leaves(params)[kernel])
    generator = named_leaves(started["generator"])
    for name, leaf in named_leaves(fresh["generator"]).items():
        np.testing.assert_allclose(generator[name], leaf, rtol=0, atol=1e-6, err_msg=name)


def test_a_run_of_other_sizes_is_an_error_that_lists_the_matching_settings(exported, packed):
    folder, config, _ = exported
    wider = dataclasses.replace(config.model, hidden_size=32, generator_num_layers=2)
    with pytest.raises(UserError) as error:
        initialize.load_params(dataclasses.replace(config, model=wider, init=f"hf:{folder}"), open_dataset(packed))
    assert "--config.model.hidden_size=16 --config.model.generator_num_layers=1" in str(error.value)


def test_a_folder_with_another_vocabulary_is_an_error(exported, packed, tmp_path):
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
        initialize.fit_to_dataset(str(folder), convert.import_folder(str(folder)), open_dataset(packed))


def test_a_cased_model_with_lower_cased_data_is_an_error(exported, packed, tmp_path):
    folder = exported[0] / "discriminator"
    imported = dataclasses.replace(convert.import_folder(str(folder)), lower_case=False)
    with pytest.raises(UserError, match="model of cased text.*pack the text again with --cased"):
        initialize.fit_to_dataset(str(folder), imported, open_dataset(packed))


def test_a_model_that_keeps_accents_needs_data_that_does(exported, packed):
    imported = dataclasses.replace(convert.import_folder(str(exported[0] / "discriminator")), keep_accents=True)
    with pytest.raises(UserError, match="keeps accents, but .* was packed without --keep_accents; pack .* with it"):
        initialize.fit_to_dataset("folder", imported, open_dataset(packed))


def test_rows_longer_than_the_models_positions_are_an_error(exported, packed):
    imported = convert.import_folder(str(exported[0] / "discriminator"))
    dataset = open_dataset(packed)
    long = dataclasses.replace(dataset, manifests=(dataclasses.replace(dataset.manifest, row_length=4096),))
    with pytest.raises(
        UserError, match=r"a model of \d+ positions, but .* has rows of 4,096 tokens; pack the text again"
    ):
        initialize.fit_to_dataset("folder", imported, long)


def test_a_generator_alone_cannot_start_a_run(exported):
    imported = convert.import_folder(str(exported[0] / "generator"))
    with pytest.raises(UserError, match="wanted a discriminator"):
        initialize.select_preset("folder", imported)


@pytest.fixture(scope="module")
def extended(exported, tmp_path_factory):
    """Documents packed with the vocabulary of the exported model and new tokens after it."""
    folder = tmp_path_factory.mktemp("extended")
    old = exported[0] / "discriminator" / "vocab.txt"
    rng, words = np.random.default_rng(0), [*saved_run.WORDS, "ranitidine", "infarct", "fibroid"]
    texts = (" ".join(rng.choice(words, 30)) for _ in range(60))
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": f"{text}."}) for text in texts))
    steps = (
        ["prepare", f"--input={folder}/text.jsonl", f"--output={folder}/documents", "--validation=0.2", "--workers=1"],
        ["vocab", f"--documents={folder}/documents", f"--output={folder}/vocab.txt", f"--extend={old}", "--size=120"],
        ["pack", f"--documents={folder}/documents", f"--vocab={folder}/vocab.txt", f"--output={folder}/rows"],
    )
    steps[-1].extend(["--max_seq_length=32", "--workers=1"])
    for step in steps:
        assert cli.main(step) == 0
    return folder


def test_a_run_starts_from_released_weights_with_new_tokens_and_lists_what_was_loaded(exported, extended, tmp_path):
    folder, _, _ = exported
    alone, run, config_file = f"{folder}/discriminator", tmp_path / "run", tmp_path / "c.py"
    cli.main(["import", f"--input={alone}", f"--data={extended}/rows", f"--output={config_file}"])
    settings = ["optimizer.warmup_steps=2", "total_steps=4", "batch_size=8", "eval_batches=1", "log_every=1"]
    train = ["pretrain", f"--config={config_file}", f"--workdir={run}", *(f"--config.{one}" for one in settings)]
    training = quick_run.start(*train, "--stop_after=2", devices=1)
    log = training.communicate()[1]
    assert training.returncode == 0, log
    report = json.loads((run / "init.json").read_text())
    old, new = ((place / "vocab.txt").read_text().splitlines() for place in (folder / "discriminator", extended))
    assert report["new_tokens"] == new[len(old) :] and len(new) > len(old) and new[: len(old)] == old
    assert "discriminator/head/dense/kernel" in report["loaded"] and "embeddings/word" in report["loaded"]
    assert all(name.startswith("generator/") for name in report["missing"]) and report["missing"]
    for message in (
        "arrays not in the folder, initialized at random: generator/",
        "new tokens initialized to the mean of their pieces",
    ):
        assert message in log
    first, second = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:2])
    assert first["learning_rate"] < second["learning_rate"], "the warm-up starts again"
    # It resumes without the folder, which may be deleted.
    assert cli.main([*train, "--config.init=hf:/gone", "--stop_after=2"]) == 0
    assert json.loads((run / "init.json").read_text()) == report


def test_an_init_that_is_no_hugging_face_folder_is_an_error_before_the_run_starts(packed, tmp_path, capsys):
    train = [
        "pretrain",
        f"--config.data.directory={packed}",
        f"--workdir={tmp_path}/run",
        "--config.model.max_positions=32",
    ]
    config = pathlib.Path(config_lib.__file__).parents[2] / "configs" / "pretrain_tiny.py"
    assert cli.main([*train, f"--config={config}", "--config.init=models/small"]) == 2
    assert "wanted hf:DIR" in capsys.readouterr().err
    assert cli.main([*train, f"--config={config}", "--config.init=hf:models/small"]) == 2
    assert "wanted a Hugging Face ELECTRA folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_export_pushes_the_files_that_it_wrote(packed, tmp_path, monkeypatch, capsys):
    saved_run.save(packed, tmp_path / "run", "mlm", "all")
    export = ["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf", "--data_license=*=CC0", "--json"]
    with hub_server.running(monkeypatch) as hub:
        assert cli.main([*export, "--push=me/small", "--private", "--tag=v1.0"]) == 0
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)["pushed"]) == ["me/small-generator"]
    written = {f"me/small-generator/{path.name}": path.read_bytes() for path in (tmp_path / "hf/generator").iterdir()}
    assert hub.files == written and b"| CC0 | 1 |" in hub.files["me/small-generator/README.md"]
    assert hub.private == {"me/small-generator": True} and list(hub.tags) == ["me/small-generator@v1.0"]
    assert str(tmp_path) not in hub.files["me/small-generator/README.md"].decode(), "a card has no local path"
    assert hub.files["me/small-generator/generator_loss.png"].startswith(b"\x89PNG")
    assert hub_server.TOKEN not in captured.out + captured.err


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--push=small", "wanted USER/NAME"),
        ("--data_license=CC0", "wanted PATTERN=LICENCE"),
        ("--watts=-1", "above 0"),
        ("--carbon_intensity=0", "wanted grams of CO2 equivalents per kWh"),
        ("--private", "no effect without --push"),
        ("--tag=v1.0", "no effect without --push"),
        ("--seed=1", "contains a pre-trained model"),
        ("--results=nowhere", "not a workdir of electramed finetune"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_written(packed, tmp_path, capsys, option, message):
    saved_run.save(packed, tmp_path / "run")
    assert cli.main(["export", f"--workdir={tmp_path}/run", f"--output={tmp_path}/hf", option]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "hf").exists()
