"""Settings of pre-training: read once, checked, and refused with an error that names the fix."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune as finetune_config
from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.pretrain import Config, from_dict, from_flags, resolve, to_dict
from electramed_jax.config.special_tokens import SpecialIds

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
TINY = f"--config={CONFIGS / 'pretrain_tiny.py'}"
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)


def resolved(config: Config | None = None, *, vocab_size: int = 31_090, row_length: int = 128) -> Config:
    config = from_flags([TINY]) if config is None else config
    return resolve(config, vocab_size=vocab_size, max_seq_length=row_length, special=SPECIAL)


def with_rows(row_length: int, mask_probability: float = 0.15) -> Config:
    return Config(
        data=config_lib.DataConfig(max_seq_length=row_length),
        objective=config_lib.ObjectiveConfig(mask_probability=mask_probability),
    )


# ---- from the command line -----------------------------------------------------------------------


def test_the_command_line_overrides_the_file():
    config = from_flags([TINY, "--config.optimizer.learning_rate=3e-4", "--config.model.tying=all"])
    assert (config.optimizer.learning_rate, config.model.tying) == (3e-4, "all")
    assert config.model.hidden_size == from_flags([TINY]).model.hidden_size


def test_settings_may_come_before_the_file():
    assert from_flags(["--config.batch_size=64", TINY]).batch_size == 64


def test_an_integer_is_accepted_for_a_float():
    values = to_dict(Config())
    values["optimizer"]["learning_rate"] = 1
    rate = from_dict(values).optimizer.learning_rate
    assert (rate, type(rate)) == (1.0, float)
    assert from_flags([TINY, "--config.optimizer.learning_rate=1"]).optimizer == dataclasses.replace(
        from_flags([TINY]).optimizer, learning_rate=1.0
    )


def test_an_automatic_setting_takes_auto_or_a_value_on_the_command_line_and_in_files():
    assert (from_flags([TINY]).mesh.fsdp, from_flags([TINY]).model.scan_layers) == ("auto", "auto")
    config = from_flags([TINY, "--config.mesh.fsdp=4", "--config.model.scan_layers=false"])
    assert (config.mesh.fsdp, config.model.scan_layers) == (4, False)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert from_flags([TINY, "--config.mesh.fsdp=auto", "--config.model.kernels=gelu,attention"]).mesh.fsdp == "auto"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("mesh.fsdp=half", r"config\.mesh\.fsdp='half': wanted a int or auto"),
        ("mesh.fsdp=0", r"config\.mesh\.fsdp=0 is out of range; wanted a number above 0, or auto"),
        ("model.scan_layers=maybe", r"config\.model\.scan_layers='maybe': wanted a bool or auto"),
        ("model.kernels=flash", r"wanted auto, none, or some of attention, gelu, residual_norm separated by commas"),
    ],
)
def test_an_automatic_setting_refuses_other_values(setting, message):
    with pytest.raises(UserError, match=message):
        from_flags([TINY, f"--config.{setting}"])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optimizer.learning_rat", "optimizer.learning_rate"),
        ("optimiser.learning_rate", "optimizer.learning_rate"),
        ("learning_rate", "optimizer.learning_rate"),
        ("model.hiden_size", "model.hidden_size"),
        ("total_step", "total_steps"),
    ],
)
def test_the_error_for_an_unknown_setting_suggests_the_nearest_one(typed, meant):
    with pytest.raises(UserError) as caught:
        from_flags([TINY, f"--config.{typed}=1"])
    assert str(caught.value) == f"config.{typed}: no such setting; did you mean config.{meant}?"


def test_a_setting_unlike_any_other_is_refused_without_a_suggestion():
    with pytest.raises(UserError, match=r"config\.xyzzy: no such setting$"):
        from_flags([TINY, "--config.xyzzy=1"])


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("batch_size=1.5", "int"),
        ("batch_size=many", "int"),
        ("optimizer.learning_rate=high", "float"),
        ("objective.disallow_correct=maybe", "boolean"),
    ],
)
def test_the_error_for_a_value_of_the_wrong_type_names_the_wanted_type(setting, wanted):
    with pytest.raises(UserError, match=rf"--config\.{setting}: .*{wanted}"):
        from_flags([TINY, f"--config.{setting}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no config file; add --config=pretrain_small"),
        (
            ["--config=configs/nowhere.py"],
            "config=configs/nowhere.py: no such config file or recipe; wanted a path, or one of electramed_base",
        ),
        ([TINY, "stray"], "unexpected argument 'stray'"),
        ([TINY, "--config.batch_size"], "Missing value for flag --config.batch_size"),
    ],
)
def test_unreadable_arguments_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError) as caught:
        from_flags(arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", "cannot be read (invalid syntax"),
        ("import nowhere\n", "cannot be read (No module named 'nowhere')"),
        (
            "from electramed_jax.config import preset\n"
            "def get_config():\n    c = preset('tiny')\n    c.model.hiden_size = 3\n    return c\n",
            "config.model does not fit this version's settings (unknown: hiden_size; did you mean hidden_size?)",
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_reported_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        from_flags([f"--config={path}"])
    assert message in str(caught.value) and "\n" not in str(caught.value)


# ---- ranges and contradictions -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.vocab_size=-1"], "config.model.vocab_size=-1 is out of range; wanted a number of at least 0"),
        (["batch_size=0"], "config.batch_size=0 is out of range; wanted a number above 0"),
        (["log_every=-5"], "config.log_every=-5 is out of range"),
        (["model.dropout=1"], "config.model.dropout=1.0 is out of range; wanted a number from 0 up to"),
        (["optimizer.learning_rate=-1"], "config.optimizer.learning_rate=-1.0 is out of range"),
        (["optimizer.learning_rate=nan"], "config.optimizer.learning_rate=nan is out of range"),
        (["optimizer.beta2=1"], "config.optimizer.beta2=1.0 is out of range"),
        (["optimizer.decay_power=-1"], "config.optimizer.decay_power=-1.0 is out of range"),
        (["objective.mask_probability=15"], "wanted a fraction between 0 and 1, such as 0.15"),
        (["objective.mask_token_share=1.5"], "wanted a fraction from 0 to 1, such as 0.85"),
        (["objective.temperature=0"], "config.objective.temperature=0.0 is out of range"),
        (["mesh.data=0"], "config.mesh.data=0 is out of range; wanted -1 or above 0"),
        (["mesh.fsdp=-1"], "config.mesh.fsdp=-1 is out of range"),
        (["model.tying=some"], "config.model.tying='some' is out of range; wanted one of embeddings, none"),
        (["model.remat=half"], "wanted one of auto, full, dots, none"),
        (["model.num_heads=3"], "config.model.hidden_size=128 is not divisible by config.model.num_heads=3"),
        (["model.generator_num_heads=5"], "config.model.generator_hidden_size=64 is not divisible"),
        (["model.max_positions=64"], "rows of 128 tokens need config.model.max_positions of at least that; got 64"),
        (["total_steps=100"], "leaves no step after the warm-up; use fewer than config.total_steps=100, usually 1"),
        (["objective.kind=mlm"], "got config.model.tying=embeddings; set it to all"),
        (
            ["keep_period=1500"],
            "config.keep_period=1500 is not a multiple of config.save_every=1000, so few of its steps would be saved; use 2000",
        ),
        (["keep_period=-1"], "config.keep_period=-1 is out of range"),
        (["preemption_grace_seconds=0"], "config.preemption_grace_seconds=0.0 is out of range"),
    ],
)
def test_the_error_for_a_setting_out_of_range_names_it(settings, message):
    with pytest.raises(UserError) as caught:
        resolved(from_flags([TINY, *(f"--config.{setting}" for setting in settings)]))
    assert message in str(caught.value)


def test_sizes_of_a_fully_tied_generator_are_not_checked():
    config = from_flags([TINY, "--config.model.tying=all", "--config.model.generator_num_heads=5"])
    assert resolved(config).model.generator == config.model.discriminator


# ---- the dataset ---------------------------------------------------------------------------------


def test_vocabulary_size_row_length_and_special_ids_come_from_the_dataset():
    config = resolved(vocab_size=31_090, row_length=64)
    assert (config.model.vocab_size, config.model.padded_vocab_size) == (31_090, 31_104)
    assert (config.data.max_seq_length, config.data.special) == (64, SPECIAL)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.vocab_size=30522", "config.model.vocab_size=30522 but the packed dataset has 31090"),
        ("data.max_seq_length=512", "config.data.max_seq_length=512 but the packed dataset has 128"),
    ],
)
def test_the_error_for_a_setting_that_contradicts_the_dataset_has_both_numbers(setting, message):
    with pytest.raises(UserError) as caught:
        resolved(from_flags([TINY, f"--config.{setting}"]))
    assert message in str(caught.value)
    assert f"set config.{setting.split('=')[0]}=0 to take the dataset's" in str(caught.value)


# ---- masked positions of a row -----------------------------------------------------------------------


@pytest.mark.parametrize(("row_length", "max_predictions"), [(512, 79), (128, 19), (64, 10), (1, 1)])
def test_the_number_of_masked_positions_is_the_references(row_length, max_predictions):
    assert with_rows(row_length).max_predictions == max_predictions


@pytest.mark.parametrize("p", [0.01, 0.15, 0.25, 0.5, 0.999])
def test_masked_positions_suffice_for_the_masked_fraction_and_fit_a_row(p):
    for row_length in range(1, 600):
        assert max(1, round(p * row_length)) <= with_rows(row_length, p).max_predictions <= row_length


# ---- files ---------------------------------------------------------------------------------------


def test_a_config_is_equal_after_a_round_trip_through_json():
    config = resolved()
    config = dataclasses.replace(config, init="hf:models/discriminator", mesh=config_lib.MeshConfig(2, 2, 2))
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_the_error_for_a_config_of_another_version_names_the_different_settings():
    values = to_dict(Config())
    values["model"]["layers"] = values["model"].pop("num_layers")
    with pytest.raises(UserError, match=r"config\.model does not fit .*unknown: layers.*; missing: num_layers"):
        from_dict(values)


def test_a_value_of_another_type_in_a_saved_config_is_refused():
    with pytest.raises(UserError, match=r"config\.batch_size='128' is a str; wanted a int"):
        from_dict(to_dict(Config()) | {"batch_size": "128"})


FINETUNE = "finetune_"


@pytest.mark.parametrize(
    "path", sorted(path for path in CONFIGS.glob("*.py") if FINETUNE not in path.stem), ids=lambda path: path.stem
)
def test_every_pre_training_config_file_loads_and_resolves(path):
    """Resolved with SciVocab and rows of their own length or of 512 tokens, the dataset of the largest recipes."""
    config = from_flags([f"--config={path}"])
    config = resolved(config, row_length=config.data.max_seq_length or 512)
    assert config.total_steps > config.optimizer.warmup_steps


@pytest.mark.parametrize("path", sorted(CONFIGS.glob(f"{FINETUNE}*.py")), ids=lambda path: path.stem)
def test_every_fine_tuning_config_file_needs_an_encoder_and_loads_with_one(path):
    with pytest.raises(UserError, match=r"no encoder to start from; add --config\.init=DIR"):
        finetune_config.from_flags([f"--config={path}"])
    assert finetune_config.from_flags([f"--config={path}", "--config.init=some/workdir"]).init == "some/workdir"


def test_electramed_base_is_the_published_recipe():
    """Miolo, Mantoan, Orsenigo 2021; generator and optimizer are ELECTRA-Base's."""
    config = resolved(from_flags([f"--config={CONFIGS / 'electramed_base.py'}"]), row_length=512)
    model, optimizer, objective = config.model, config.optimizer, config.objective
    assert dataclasses.astuple(model.discriminator) == (12, 768, 12, 3072)
    assert dataclasses.astuple(model.generator) == (12, 256, 4, 1024)
    assert (model.vocab_size, model.embedding_size, model.max_positions) == (31_090, 768, 512)
    assert (model.dropout, model.attention_dropout, model.tying) == (0.1, 0.1, "embeddings")
    assert (config.batch_size, config.data.max_seq_length, config.max_predictions) == (256, 512, 79)
    assert (config.total_steps, optimizer.warmup_steps, optimizer.learning_rate) == (1_000_000, 10_000, 2e-4)
    assert (optimizer.weight_decay, optimizer.epsilon, optimizer.clip_norm) == (0.01, 1e-6, 1.0)
    assert (optimizer.beta1, optimizer.beta2, optimizer.decay_power) == (0.9, 0.999, 1.0)
    assert (objective.kind, objective.mask_probability, objective.mask_token_share) == ("electra", 0.15, 0.85)
    assert (objective.generator_weight, objective.discriminator_weight) == (1.0, 50.0)


def test_a_saved_config_from_before_a_setting_was_added_takes_its_default():
    """Saved values are kept; unknown settings are still refused. The default of an automatic setting is not "auto"."""
    before = Config(batch_size=96, mesh=config_lib.MeshConfig(data=4))
    saved = to_dict(before)
    del saved["gradient_accumulation_steps"], saved["optimizer"]["kind"], saved["mesh"]["fsdp"]
    for name in ("compute_dtype", "remat", "scan_layers", "kernels"):
        del saved["model"][name]
    assert config_lib.from_saved(saved) == before
    saved["optimizer"]["momentum"] = 0.9
    with pytest.raises(UserError, match=r"unknown: momentum"):
        config_lib.from_saved(saved)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda _: [], r"config is \[\]; wanted settings by name"),
        (lambda saved: saved | {"model": 5}, "config.model is 5; wanted settings by name"),
        (lambda saved: saved | {"data": 5, "data.row_length": 3}, "'data' is a group of settings and a setting"),
        (lambda saved: saved | {"batch_size": "8"}, "config.batch_size='8' is a str; wanted a int"),
        (lambda saved: saved | {"batch_size": 0}, "config.batch_size=0 is out of range"),
        (lambda saved: saved | {"preemption_grace_seconds": 10**400}, "a whole number of 401 digits; wanted a float"),
        (lambda saved: saved | {"model": saved["model"] | {"num_heads": 7}}, "is not divisible by .*num_heads=7"),
        (lambda saved: saved | {"surprise": 1}, "unknown: surprise"),
    ],
)
def test_a_damaged_saved_config_is_one_line_that_names_file_and_setting(edit, reason):
    saved = to_dict(Config())
    with pytest.raises(UserError, match=rf"^run/config.json: .*{reason}") as error:
        config_lib.from_saved(edit(saved), "run/config.json")
    assert "\n" not in str(error.value)
