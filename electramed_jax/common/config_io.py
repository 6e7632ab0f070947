"""Converts settings between frozen dataclasses, nested dicts, config files and command-line flags.

A config file defines `get_config`, which returns an `ml_collections.ConfigDict` with every field of a settings
dataclass. `from_flags` applies the flags `--config.a.b=c` to it and freezes the result. `RENAMED` maps earlier names of
settings to the current ones: saved configs are migrated silently, config files and command lines with a warning.

A field declared as `int | Auto` holds a number or "auto": the program chooses the number.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from electramed_jax.common import console
from electramed_jax.common.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")

Auto = Literal["auto"]
AUTO: Auto = "auto"  # value of a setting that the program chooses
_MAX_SHOWN = 60  # characters of a wrong value in a message

# Earlier name of a setting, or of a group of settings -> current name.
RENAMED = {
    "accumulation_steps": "gradient_accumulation_steps",
    "data.row_length": "data.max_seq_length",
    "grace_seconds": "preemption_grace_seconds",
    "keep_checkpoints": "max_to_keep",
    "keep_every": "keep_period",
    "like": "init_size_from",
    "optimizer.layer_decay": "optimizer.layerwise_lr_decay",
    "optimizer.layer_decay_rule": "optimizer.layerwise_lr_decay_rule",
    "qa.first": "qa.pretrain_stage",
    "qa.max_answer_pieces": "qa.max_answer_length",
    "qa.max_question": "qa.max_query_length",
    "qa.stride": "qa.doc_stride",
    "task.max_length": "task.max_seq_length",
}


def from_dict(cls: type[Settings], values: Mapping[str, Any], where: str = "config") -> Settings:
    """Builds a settings dataclass from nested dicts; the inverse of `dataclasses.asdict`.

    Args:
      cls: the dataclass.
      values: a value for every field.
      where: prefix of the names in error messages.

    Raises:
      UserError: an unknown or missing setting, or a value of the wrong type; names the setting.
    """
    _require_group(where, values)
    fields = typing.get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(fields)), sorted(set(fields) - set(values))
    if unknown or missing:
        problems = [f"unknown: {name[:_MAX_SHOWN]}{_did_you_mean(name, fields)}" for name in unknown]
        problems += [f"missing: {', '.join(missing)}"] * bool(missing)
        raise UserError(f"{where} does not fit this version's settings ({'; '.join(problems)})")
    converted: dict[str, Any] = {}
    for name, kind in fields.items():
        value, may_be_auto = values[name], is_automatic(kind)
        kind = get_args(kind)[0] if may_be_auto else kind
        if dataclasses.is_dataclass(kind):
            converted[name] = from_dict(typing.cast("type[DataclassInstance]", kind), value, f"{where}.{name}")
        elif may_be_auto and value == AUTO:
            converted[name] = value
        elif kind is float and type(value) is int:
            converted[name] = _to_float(f"{where}.{name}", value)
        elif type(value) is not kind:
            wanted = f"a {kind.__name__}{' or auto' if may_be_auto else ''}"
            raise UserError(f"{where}.{name}={value!r:.{_MAX_SHOWN}} is a {type(value).__name__}; wanted {wanted}")
        else:
            converted[name] = value
    return cls(**converted)


def is_automatic(kind: Any) -> bool:
    """Returns whether a field of this type may be "auto" in place of a number or a truth value: `int | Auto`."""
    return Auto in get_args(kind)


def _require_group(where: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r:.{_MAX_SHOWN}}; wanted settings by name")


def _to_float(name: str, value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{name} is a whole number of {len(str(value))} digits; wanted a float") from None


def from_saved(cls: type[Settings], values: Mapping[str, Any], where: str = "config") -> Settings:
    """Builds settings from a saved config; a setting that is newer than the saved config takes its default.

    Raises:
      UserError: as `from_dict`.
    """

    def complete(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        both = {**defaults, **given}
        return {
            name: (
                complete(defaults[name], value)
                if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
                else value
            )
            for name, value in both.items()
        }

    _require_group(where, values)
    try:
        renamed = rename_settings(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    return from_dict(cls, complete(dataclasses.asdict(cls()), renamed), where)


def rename_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with the current names in place of those in `RENAMED`.

    If a setting is present under both names, the value of the earlier name is used: a config file written for an
    earlier version assigns the earlier name, and the default of the current name is still there.
    """
    renamed: dict[str, Any] = {}
    for name, value in sorted(flatten(values).items(), key=lambda item: current_name(item[0]) != item[0]):
        *groups, last = current_name(name).split(".")
        place = renamed
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise UserError(f"{name}: {group!r} is a group of settings and a setting; wanted one of the two")
        place[last] = value
    return renamed


def current_name(name: str) -> str:
    """Returns the current name of a setting: "qa.pretrain_stage.train" for "qa.first.train"."""
    for old, new in RENAMED.items():
        if name == old or name.startswith(f"{old}."):
            return new + name.removeprefix(old)
    return name


def diff_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns {"a.b": (old value, new value)} of the settings that differ; a missing value is None.

    Args:
      old: nested settings. A tuple, as in a dataclass, equals the list of its items, as in JSON.
      new: nested settings to compare with.
    """
    a, b = ({name: _as_json(value) for name, value in flatten(values).items()} for values in (old, new))
    return {name: (a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_flags(cls: type[Settings], arguments: Sequence[str], *, example: str) -> Settings:
    """Reads the settings from `--config=FILE.py` and the flags `--config.a.b=value`.

    Args:
      cls: dataclass of the settings; every field has a default.
      arguments: command-line arguments.
      example: recipe that the error message suggests if no config file is given.

    Raises:
      UserError: no config file, one that cannot be read, an unknown setting (suggests the nearest name), or a
        value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    config_files = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    if not config_files:
        raise UserError(f"no config file; add --config={example} or another one that electramed recipes lists")
    arguments = [_current_flag(argument) for argument in arguments]
    _check_names(arguments, list(flatten(dataclasses.asdict(cls()))))
    arguments, automatic = _split_automatic(cls, arguments)
    values = flags.FlagValues()
    command = ["electramed", *sorted(arguments, key=lambda a: not a.startswith("--config="))]
    # sys_argv: absl would otherwise look for --config in the arguments of the process, not in those of this call.
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    try:
        unparsed = values(command)[1:]
    except (ImportError, OSError, SyntaxError) as error:
        raise UserError(f"{config_files[-1]}: cannot be read ({_message(error)}); fix the file") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_message(error)) from error
    if unparsed:
        raise UserError(f"unexpected argument {unparsed[0]!r}; settings are written --config.name=value")
    given = holder.value.to_dict()
    for name in flatten(given):
        if current_name(name) != name:
            _warn_renamed(f"{config_files[-1]}: {name}", current_name(name))
    # A config file of an earlier version lacks newer settings.
    return from_saved(cls, _replace_settings(given, automatic))


def _split_automatic(cls: type[Settings], arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separates the flags of settings that may be "auto"; ml_collections would parse them as the type of the default.

    Returns:
      the other arguments, and the values by name of the setting.

    Raises:
      UserError: a value is neither "auto" nor of the other type.
    """
    kinds = {name: get_args(kind)[0] for name, kind in _field_types(cls).items() if is_automatic(kind)}
    others, values = [], {}
    for argument in arguments:
        name, _, text = argument.removeprefix("--config.").partition("=")
        if argument.startswith("--config.") and name in kinds:
            values[name] = _parse_automatic(name, kinds[name], text)
        else:
            others.append(argument)
    return others, values


def _parse_automatic(name: str, kind: type, text: str) -> Any:
    """Returns the value of a flag: "auto", a truth value or a number."""
    if text == AUTO:
        return AUTO
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return {int: int, float: float}[kind](text)
    except (KeyError, ValueError) as error:
        raise UserError(f"config.{name}={text!r}: wanted a {kind.__name__} or auto") from error


def _field_types(cls: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the type of every setting by its dotted name."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(cls).items():
        found |= _field_types(kind, f"{prefix}{name}.") if dataclasses.is_dataclass(kind) else {prefix + name: kind}
    return found


def _replace_settings(values: dict[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested settings with other values for some dotted names."""
    for name, value in changed.items():
        *groups, last = name.split(".")
        place = values
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return values


def _current_flag(argument: str) -> str:
    """Returns `--config.name=value` with the current name of the setting; warns if the name was an earlier one."""
    if not argument.startswith("--config."):
        return argument
    name, equals, value = argument.removeprefix("--config.").partition("=")
    if current_name(name) != name:
        _warn_renamed(f"--config.{name}", f"--config.{current_name(name)}")
    return f"--config.{current_name(name)}{equals}{value}"


def _warn_renamed(old: str, new: str) -> None:
    console.warn(f"{old} is now called {new}; the earlier name still works")


def require(name: str, value: Any, valid: bool, wanted: str) -> None:
    """Raises a UserError that names the setting, its value and the wanted range, unless the value is `valid`."""
    if not valid:
        raise UserError(f"config.{name}={value!r} is out of range; wanted {wanted}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one dict: {"a.b": value, ...}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _check_names(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises a UserError for a flag `--config.name=value` that names no setting; suggests the nearest name."""
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and name not in known:
            same_last_part = [other for other in known if other.split(".")[-1] == name.split(".")[-1]]
            raise UserError(f"config.{name}: no such setting{_did_you_mean(name, same_last_part or known, 'config.')}")


def _did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _message(error: Exception) -> str:
    """Returns the whole text of an exception in one line, without the quotes that a KeyError adds."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(message).split())
