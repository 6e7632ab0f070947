"""Settings by their earlier names: in config files, on the command line and in the config.json of old runs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.config import finetune, presets, pretrain

OLD_PRETRAIN = """
from electramed_jax.config import preset

def get_config():
    config = preset("tiny")
    config.unlock()
    del config.gradient_accumulation_steps, config.max_to_keep, config.data.max_seq_length
    config.accumulation_steps = 4
    config.keep_checkpoints = 7
    config.data.row_length = 256
    return config
"""
ASSIGNED_WITH_THE_DEFAULT = """
from electramed_jax.config import preset

def get_config():
    config = preset("tiny")
    config.unlock()
    config.accumulation_steps = 4
    return config
"""
OLD_FINETUNE = """
from electramed_jax.finetune import config

def get_config():
    settings = config.defaults("ner")
    settings.unlock()
    settings.init = "runs/small"
    settings.task.max_length = 64
    settings.qa.stride = 32
    settings.optimizer.layer_decay = 0.9
    return settings
"""


@pytest.fixture
def tiny(repository):
    return f"--config={repository / 'configs' / 'pretrain_tiny.py'}"


@pytest.fixture
def ner(repository):
    return f"--config={repository / 'configs' / 'finetune_ner.py'}"


def write(tmp_path, text: str) -> str:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    return f"--config={path}"


def assert_warns_of(capsys, *renamed: tuple[str, str]) -> None:
    """One line of output for each (earlier name, name of today), and no other."""
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) == len(renamed), lines
    for line, (old, new) in zip(lines, renamed, strict=True):
        assert old in line and new in line and "earlier name still works" in line


def test_every_renamed_setting_is_a_setting_or_a_group_of_today():
    known = set()
    for config in (pretrain.Config(), finetune.FinetuneConfig()):
        for name in config_io.flatten(dataclasses.asdict(config)):
            parts = name.split(".")
            known |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    assert set(config_io.RENAMED.values()) <= known
    assert not set(config_io.RENAMED) & known


# ---- config files --------------------------------------------------------------------------------


def test_a_pre_training_config_file_with_earlier_names_is_read_with_a_warning_for_each(tmp_path, capsys):
    config = pretrain.from_flags([write(tmp_path, OLD_PRETRAIN)])
    assert (config.gradient_accumulation_steps, config.max_to_keep, config.data.max_seq_length) == (4, 7, 256)
    assert_warns_of(
        capsys,
        ("mine.py: accumulation_steps", "gradient_accumulation_steps"),
        ("mine.py: data.row_length", "data.max_seq_length"),
        ("mine.py: keep_checkpoints", "max_to_keep"),
    )


def test_a_fine_tuning_config_file_of_an_earlier_version_is_read(tmp_path, capsys):
    config = finetune.from_flags([write(tmp_path, OLD_FINETUNE)])
    assert (config.task.max_seq_length, config.qa.doc_stride, config.optimizer.layerwise_lr_decay) == (64, 32, 0.9)
    assert_warns_of(
        capsys,
        ("optimizer.layer_decay", "optimizer.layerwise_lr_decay"),
        ("qa.stride", "qa.doc_stride"),
        ("task.max_length", "task.max_seq_length"),
    )


def test_of_two_names_in_a_config_file_the_earlier_one_counts(tmp_path):
    """The later one is the default of a preset, which the file did not touch."""
    config = pretrain.from_flags([write(tmp_path, ASSIGNED_WITH_THE_DEFAULT)])
    assert config.gradient_accumulation_steps == 4


def test_both_names_in_saved_settings_become_one():
    both = {"data": {"row_length": 64, "max_seq_length": 0, "seed": 3}, "keep_every": 5}
    assert config_io.rename_settings(both) == {"data": {"max_seq_length": 64, "seed": 3}, "keep_period": 5}


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("accumulation_steps", "gradient_accumulation_steps"),
        ("keep_checkpoints", "max_to_keep"),
        ("data.row_length", "data.max_seq_length"),
    ],
)
def test_an_earlier_name_on_the_command_line_works_with_one_warning(tiny, capsys, old, new):
    config = pretrain.from_flags([tiny, f"--config.{old}=16"])
    assert config_io.flatten(pretrain.to_dict(config))[new] == 16
    assert_warns_of(capsys, (f"--config.{old}", f"--config.{new}"))


def test_an_earlier_name_of_a_group_on_the_command_line_works(ner, capsys):
    config = finetune.from_flags(
        [
            ner,
            "--config.init=scratch",
            "--config.like=tiny",
            "--config.task.kind=qa",
            "--config.qa.first.train=squad.json",
        ]
    )
    assert (config.init_size_from, config.qa.pretrain_stage.train) == ("tiny", "squad.json")
    assert_warns_of(capsys, ("like", "init_size_from"), ("qa.first.train", "qa.pretrain_stage.train"))


def test_an_earlier_name_overrides_the_value_of_the_file(tmp_path, capsys):
    config = pretrain.from_flags([write(tmp_path, ASSIGNED_WITH_THE_DEFAULT), "--config.keep_every=1000"])
    assert (config.gradient_accumulation_steps, config.keep_period) == (4, 1000)
    assert_warns_of(capsys, ("keep_every", "keep_period"), ("accumulation_steps", "gradient_accumulation_steps"))


def test_a_name_of_today_gives_no_warning(tiny, capsys):
    pretrain.from_flags([tiny, "--config.max_to_keep=2"])
    assert_warns_of(capsys)


def test_a_misspelt_earlier_name_is_refused_with_the_nearest_setting_of_today(tiny):
    with pytest.raises(UserError) as caught:
        pretrain.from_flags([tiny, "--config.acumulation_steps=4"])
    message = str(caught.value)
    assert message == ("config.acumulation_steps: no such setting; did you mean config.gradient_accumulation_steps?")


# ---- saved runs ----------------------------------------------------------------------------------


def test_a_saved_config_with_earlier_names_is_read_silently(capsys):
    saved = json.loads(json.dumps(pretrain.to_dict(presets.PRESETS["small"])))
    saved["accumulation_steps"] = saved.pop("gradient_accumulation_steps") + 1
    saved["grace_seconds"] = saved.pop("preemption_grace_seconds") + 15
    saved["keep_checkpoints"] = saved.pop("max_to_keep")
    saved["keep_every"] = saved.pop("keep_period")
    saved["data"]["row_length"] = 128
    del saved["data"]["max_seq_length"]
    config = pretrain.from_saved(saved)
    assert (config.gradient_accumulation_steps, config.preemption_grace_seconds) == (2, 45.0)
    assert config.data.max_seq_length == 128
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_saved_fine_tuning_config_with_earlier_names_is_read():
    saved = json.loads(json.dumps(dataclasses.asdict(finetune.FinetuneConfig())))
    saved["qa"]["first"] = {**saved["qa"].pop("pretrain_stage"), "train": "squad.json"}
    saved["qa"]["max_question"] = saved["qa"].pop("max_query_length") + 1
    saved["task"]["max_length"] = saved["task"].pop("max_seq_length") * 2
    config = config_io.from_saved(finetune.FinetuneConfig, saved)
    assert (config.qa.pretrain_stage.train, config.qa.max_query_length) == ("squad.json", 65)
    assert config.task.max_seq_length == 256


# ---- modules that config files import ------------------------------------------------------------


def test_modules_that_config_files_import_do_not_import_jax():
    """`electramed finetune --help` and config files stay fast."""
    code = (
        "import sys; from electramed_jax.config import preset; from electramed_jax.finetune import config; "
        "assert preset('tiny').model.num_layers == 4 and config.defaults('ner').task.kind == 'ner'; "
        "assert not {'jax', 'flax', 'tensorflow', 'torch'} & set(sys.modules), 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
