"""Settings: frozen dataclasses <-> plain dicts <-> a config file and the command line.

A config file returns an `ml_collections.ConfigDict` with every field of a dataclass of settings; `from_flags` applies
the command line's `--config.a.b=c` to it and freezes the result.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from electramed_jax.common.errors import UserError

Settings = TypeVar("Settings")


def from_dict(cls: type[Settings], values: Mapping[str, Any], where: str = "config") -> Settings:
    """The inverse of `dataclasses.asdict`; an unknown, missing or ill-typed setting is a UserError that names it."""
    fields = typing.get_type_hints(cls)
    unknown, missing = sorted(set(values) - set(fields)), sorted(set(fields) - set(values))
    if unknown or missing:
        said = [f"unknown: {name}{_did_you_mean(name, fields)}" for name in unknown]
        said += [f"missing: {', '.join(missing)}"] * bool(missing)
        raise UserError(f"{where} does not fit this version's settings ({'; '.join(said)})")
    built = {}
    for name, kind in fields.items():
        value = values[name]
        if dataclasses.is_dataclass(kind):
            built[name] = from_dict(kind, value, f"{where}.{name}")
        elif kind is float and type(value) is int:
            built[name] = float(value)
        elif type(value) is not kind:
            raise UserError(f"{where}.{name}={value!r} is a {type(value).__name__}; wanted a {kind.__name__}")
        else:
            built[name] = value
    return cls(**built)


def from_saved(cls: type[Settings], values: Mapping[str, Any], where: str = "config") -> Settings:
    """As `from_dict`, of a run that may be older than some settings: those take their defaults, as they were then."""

    def complete(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        both = {**defaults, **given}
        return {
            name: complete(defaults[name], value) if isinstance(value, Mapping) and name in defaults else value
            for name, value in both.items()
        }

    return from_dict(cls, complete(dataclasses.asdict(cls()), values), where)


def from_flags(cls: type[Settings], arguments: Sequence[str], *, example: str) -> Settings:
    """Reads `--config=FILE.py` and any `--config.a.b=value` beside it.

    Args:
      cls: of the settings; every field has a default.
      arguments: of the command line.
      example: a config file to suggest where none is given.

    Raises:
      UserError: no config file, a file that cannot be read, an unknown setting (with the nearest known one), or a
        value of the wrong type.
    """
    from absl import flags
    from ml_collections import config_flags

    config_files = [a.removeprefix("--config=") for a in arguments if a.startswith("--config=")]
    if not config_files:
        raise UserError(f"no config file; add --config={example} or another of configs/")
    if not os.path.isfile(config_files[-1]):
        raise UserError(f"{config_files[-1]}: no such config file; see configs/")
    _check_names(arguments, list(flatten(dataclasses.asdict(cls()))))
    values = flags.FlagValues()
    command = ["electramed", *sorted(arguments, key=lambda a: not a.startswith("--config="))]
    # sys_argv: the settings to look for are this call's, which need not be the process's.
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    try:
        left_over = values(command)[1:]
    except (ImportError, OSError, SyntaxError) as error:
        raise UserError(f"{config_files[-1]}: cannot be read ({_one_line(error)}); mend it, or see configs/") from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(_one_line(error)) from error
    if left_over:
        raise UserError(f"unexpected argument {left_over[0]!r}; settings are written --config.name=value")
    return from_dict(cls, holder.value.to_dict())


def require(name: str, value: Any, holds: bool, wanted: str) -> None:
    """Raises UserError, naming the setting, unless it `holds` what is wanted of it."""
    if not holds:
        raise UserError(f"config.{name}={value!r} is out of range; wanted {wanted}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a.b": value, ...} of nested dicts."""
    found = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _check_names(arguments: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError, with the name most likely meant, for a `--config.name=value` that is no setting."""
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and name not in known:
            same_last_part = [other for other in known if other.split(".")[-1] == name.split(".")[-1]]
            raise UserError(f"config.{name}: no such setting{_did_you_mean(name, same_last_part or known, 'config.')}")


def _did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {prefix}{near[0]}?" if near else ""


def _one_line(error: Exception) -> str:
    message = error.args[0] if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(str(message).split())
