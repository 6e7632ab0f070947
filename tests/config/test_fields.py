"""Every setting is declared with help, unit and range, and one loop checks the ranges."""

from __future__ import annotations

import dataclasses

import pytest

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.config import fields
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.config.pretrain import Config

CONFIGS = (Config, FinetuneConfig)
UNBOUNDED = ("seed", "qa.null_threshold")  # numbers that may have any value
UNIT_OF_SUFFIX = {
    "_steps": "steps",
    "_every": "steps",
    "_seconds": "seconds",
    "_gigabytes": "gigabytes",
    "max_seq_length": ("tokens", "word pieces"),
}


def settings_of(config: type) -> list[fields.Setting]:
    return [one for group in fields.list_groups(config) for one in group.settings]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_list_of_settings_is_complete_with_the_defaults(config):
    defaults = config_io.flatten(dataclasses.asdict(config()))
    assert {one.name: one.default for one in settings_of(config)} == defaults


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_and_group_has_one_phrase_of_help(config):
    texts = {one.name: one.help for one in settings_of(config)}
    texts |= {group.name: group.help for group in fields.list_groups(config) if group.name}
    for name, text in texts.items():
        assert text and "\n" not in text and not text.endswith(".") and not text[0].isspace(), name


@pytest.mark.parametrize("config", CONFIGS)
def test_every_number_has_a_range_that_holds_its_default(config):
    for one in settings_of(config):
        if one.kind in (int, float) and one.name not in UNBOUNDED:
            assert one.constraint is not None, one.name
        if one.constraint is not None:
            assert one.constraint.holds(one.default), one.name


@pytest.mark.parametrize("config", CONFIGS)
def test_settings_with_a_dimension_have_its_unit(config):
    for one in settings_of(config):
        for suffix, unit in UNIT_OF_SUFFIX.items():
            if one.name.endswith(suffix) and one.name != "gradient_accumulation_steps":
                assert one.unit in unit, one.name


@pytest.mark.parametrize("config", CONFIGS)
def test_names_in_the_help_are_choices_of_the_setting(config):
    """A help of the form "name: meaning; name: meaning" describes values that exist."""
    for one in settings_of(config):
        if one.constraint is not None and one.constraint.choices and ": " in one.help:
            described = [part.split(":")[0] for part in one.help.split("; ") if ":" in part]
            assert set(described) <= set(one.constraint.choices), one.name


def test_groups_are_listed_from_the_top_down():
    names = [group.name for group in fields.list_groups(FinetuneConfig)]
    assert names == ["", "task", "ner", "text", "qa", "qa.pretrain_stage", "optimizer", "mesh"]
    assert [group.name for group in fields.list_groups(Config)][-1] == "data.special"


@pytest.mark.parametrize(
    ("constraint", "allowed", "refused"),
    [
        (fields.POSITIVE, (1, 0.5), (0, -1, float("nan"))),
        (fields.NON_NEGATIVE, (0, 3), (-1, float("nan"))),
        (fields.FRACTION, (0, 0.999), (1, -0.1, float("nan"))),
        (fields.at_least(8), (8, 9), (7, 0)),
        (fields.one_of("a", "b"), ("a", "b"), ("c", "")),
    ],
)
def test_constraints_allow_and_refuse(constraint, allowed, refused):
    assert all(constraint.holds(value) for value in allowed)
    assert not any(constraint.holds(value) for value in refused)


def test_a_nested_setting_out_of_range_is_named_with_its_path():
    config = FinetuneConfig()
    stage = dataclasses.replace(config.qa.pretrain_stage, dev_fraction=1.0)
    config = dataclasses.replace(config, qa=dataclasses.replace(config.qa, pretrain_stage=stage))
    with pytest.raises(UserError) as caught:
        fields.check_fields(config)
    assert str(caught.value) == (
        "config.qa.pretrain_stage.dev_fraction=1.0 is out of range; wanted a number from 0 up to, not including, 1"
    )
