"""Declares the fields of the settings dataclasses: default, help, unit, and range or choices of each setting.

    batch_size: int = setting(128, "rows per step, over all devices", POSITIVE)

`check_fields` refuses values out of range. `list_groups` returns the declarations, for `--help` and for tests.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.config_io import AUTO

_KEY = "setting"  # of dataclasses.Field.metadata


@dataclasses.dataclass(frozen=True)
class Constraint:
    """Range or choices of a setting.

    Attributes:
      wanted: the allowed values in words, for error messages and help: "a number above 0".
      holds: returns whether a value is allowed.
      choices: the allowed values, if they are a short list.
    """

    wanted: str
    holds: Callable[[Any], bool]
    choices: tuple[str, ...] = ()


# Each comparison is false for NaN, so NaN is refused.
POSITIVE = Constraint("a number above 0", lambda value: value > 0)
NON_NEGATIVE = Constraint("a number of at least 0", lambda value: value >= 0)
FRACTION = Constraint("a number from 0 up to, not including, 1", lambda value: 0 <= value < 1)


def at_least(minimum: int) -> Constraint:
    """Returns the constraint of numbers from `minimum` up."""
    return Constraint(f"at least {minimum}", lambda value: value >= minimum)


def one_of(*choices: str) -> Constraint:
    """Returns the constraint of a setting with a few named values."""
    return Constraint("one of " + ", ".join(choices), lambda value: value in choices, choices)


def or_auto(constraint: Constraint | None = None) -> Constraint:
    """Returns the constraint of a setting that may also be "auto"; None: any value of the type is allowed."""
    if constraint is None:
        return Constraint("a value or auto", lambda _: True)
    return Constraint(f"{constraint.wanted}, or auto", lambda value: value == AUTO or constraint.holds(value))


@dataclasses.dataclass(frozen=True)
class Setting:
    """Declaration of one setting.

    Attributes:
      name: dotted path from the top of the config, "optimizer.learning_rate".
      kind: int, float, bool or str; `int | Auto` if the value may be "auto".
      default: the dataclass's default value.
      help: one phrase, without unit and default.
      constraint: range or choices; None if any value of the type is allowed.
      unit: "steps", "seconds", ...; "" for numbers without a unit and for text.
    """

    name: str
    kind: Any
    default: Any
    help: str
    constraint: Constraint | None
    unit: str


@dataclasses.dataclass(frozen=True)
class SettingGroup:
    """Settings of one dataclass.

    Attributes:
      name: dotted path of the group, "optimizer"; "" for the top of the config.
      help: one phrase; "" for the top of the config.
      settings: in the order of the fields, without those of nested groups.
    """

    name: str
    help: str
    settings: tuple[Setting, ...]


def setting(default: Any, help: str, constraint: Constraint | None = None, unit: str = "") -> Any:
    """Returns a dataclass field with its documentation; see `Setting` for the arguments.

    A nested dataclass of settings is declared in the same way, with its instance as the default.
    """
    return dataclasses.field(default=default, metadata={_KEY: (help, constraint, unit)})


def list_groups(cls: type[Any], name: str = "", help: str = "") -> list[SettingGroup]:
    """Returns the settings of a dataclass and of the dataclasses nested in it, outermost first.

    Args:
      cls: dataclass; every field is declared with `setting`.
      name, help: of the group that `cls` forms.
    """
    kinds = typing.get_type_hints(cls)
    settings: list[Setting] = []
    nested: list[SettingGroup] = []
    for field in dataclasses.fields(cls):
        path = f"{name}.{field.name}".removeprefix(".")
        field_help, constraint, unit = field.metadata[_KEY]
        if dataclasses.is_dataclass(kinds[field.name]):
            nested += list_groups(kinds[field.name], path, field_help)
        else:
            settings.append(Setting(path, kinds[field.name], field.default, field_help, constraint, unit))
    return [SettingGroup(name, help, tuple(settings)), *nested]


def check_fields(config: Any) -> None:
    """Raises UserError if a setting is out of range.

    Args:
      config: instance of a dataclass with fields declared with `setting`.
    """
    values = config_io.flatten(dataclasses.asdict(config))
    for group in list_groups(type(config)):
        for one in group.settings:
            if one.constraint is not None:
                value = values[one.name]
                config_io.require(one.name, value, one.constraint.holds(value), one.constraint.wanted)
