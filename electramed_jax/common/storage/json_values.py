"""Parses JSON that may be damaged, and converts it to the type that the caller wants.

The wanted type is written as in a type hint:

    str, int, float, bool, Any       a float may be written as a whole number; `parse_json` decides whether as NaN
    list[X], tuple[X, ...]           a list
    dict[str, X]                     an object with any keys
    X | Y, X | None                  one of several
    a TypedDict                      an object with these keys; further keys are kept
    a dataclass                      an object with these keys and no others; a key with a default may be missing

Every value that cannot be used is a UserError of one line: file, what was found, what is wanted, what to do next.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import sys
import types
import typing
from typing import Any, TypeVar, Union

from electramed_jax.common.errors import UserError

T = TypeVar("T")

MAX_DEPTH = 100  # of lists and objects in each other; Python's own limit depends on the callers
MAX_INT = 2**63 - 1
SHOWN_CHARACTERS = 60  # of a wrong value in a message
ADVICE = "get an undamaged copy of the file, or write it again"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_NAMES = {
    str: "a text",
    int: "a whole number of at most 63 bits",
    float: "a number",
    bool: "true or false",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    types.NoneType: "null",
}


@typing.overload
def parse_json(
    data: str | bytes, place: str, *, line: int | None = None, finite: bool = True, advice: str = ADVICE
) -> Any: ...


@typing.overload
def parse_json(
    data: str | bytes,
    place: str,
    wanted: type[T],
    *,
    line: int | None = None,
    finite: bool = True,
    advice: str = ADVICE,
) -> T: ...


def parse_json(
    data: str | bytes,
    place: str,
    wanted: Any = Any,
    *,
    line: int | None = None,
    finite: bool = True,
    advice: str = ADVICE,
) -> Any:
    """Returns the value of a JSON text as the wanted type (see the module).

    Args:
      data: the text, or its bytes in UTF-8.
      place: path of the file, for messages.
      wanted: the type, as in a type hint.
      line: number of the text in a file with one JSON value a line; None: the text is the whole file.
      finite: reject NaN and infinite numbers, which JSON does not have but Python writes.
      advice: what to do about a damaged file; end of the messages.

    Raises:
      UserError: the text is not UTF-8 or not JSON; it is nested more than `MAX_DEPTH` deep, has a number of thousands
        of digits, a number that is not finite, or half of a surrogate pair; or the value is not of the wanted type.
    """
    where = place if line is None else f"{place}, line {line}"
    value = _parse(data, where, line is None, finite, advice)
    return value if wanted is Any else convert(value, wanted, where, advice=advice)


def convert(value: Any, wanted: type[T], place: str, *, advice: str = ADVICE) -> T:
    """Returns a parsed JSON value as the wanted type (see the module).

    Args:
      value: the value.
      wanted: the type, as in a type hint.
      place: start of the message.
      advice: end of the message.

    Raises:
      UserError: the value is not of the type; names the key, the value and the type.
    """
    try:
        return _convert(value, wanted, "")
    except _MismatchError as error:
        raise UserError(f"{place}: {error}; {advice}") from None


def shorten(value: Any) -> str:
    """Returns the repr of a value, cut after `SHOWN_CHARACTERS`, for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


class NestedTooDeeplyError(UserError):
    """Lists and objects are nested more than `MAX_DEPTH` deep."""


def _parse(data: str | bytes, where: str, is_file: bool, finite: bool, advice: str) -> Any:
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 text (byte {error.start:,}); {advice}") from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise UserError(f"{where}: empty; wanted JSON; {advice}")
    try:
        value = json.loads(text, parse_float=_parse_finite, parse_constant=_reject) if finite else json.loads(text)
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}" if is_file else f"column {error.colno}"
        raise UserError(f"{where}, {position}: not valid JSON ({error.msg}); {advice}") from error
    except RecursionError as error:
        raise NestedTooDeeplyError(f"{where}: {_too_deep()}; {advice}") from error
    except ValueError as error:  # _NotFiniteError, or an integer with more digits than Python converts
        reason = str(error) if isinstance(error, _NotFiniteError) else "it has a whole number of thousands of digits"
        raise UserError(f"{where}: not valid JSON ({reason}); {advice}") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(value):
        raise NestedTooDeeplyError(f"{where}: {_too_deep()}; {advice}")
    if _SURROGATE_ESCAPE.search(text) and _has_lone_surrogate(value):
        raise UserError(f"{where}: not valid text (half of a surrogate pair, such as \\ud800 alone); {advice}")
    return value


def _too_deep() -> str:
    return f"lists and objects are nested more than {MAX_DEPTH} deep"


class _NotFiniteError(ValueError):
    """A number is NaN or infinite."""


def _reject(constant: str) -> float:
    raise _NotFiniteError(f"the number {constant}")


def _parse_finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _NotFiniteError(f"the number {digits[:SHOWN_CHARACTERS]} is too large")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for one in level if isinstance(one, (dict, list)) for inner in _children(one)]
        if not level:
            return False
    return True


def _children(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def _has_lone_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


class _MismatchError(Exception):
    """A value is not of the wanted type. The text names key, value and type."""


def _convert(value: Any, wanted: Any, name: str) -> Any:
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_to_one_of(value, arguments, name)
    kind = origin or wanted
    if kind in (list, tuple):
        _require(isinstance(value, list), value, kind, name)
        if not arguments or arguments[0] is Any:
            return kind(value)
        return kind(_convert(inner, arguments[0], f"{name}[{number}]") for number, inner in enumerate(value))
    if kind is dict:
        _require(isinstance(value, dict), value, kind, name)
        if not arguments or arguments[1] is Any:
            return value
        return {key: _convert(inner, arguments[1], _join(name, key)) for key, inner in value.items()}
    if kind is float:
        is_number = type(value) is float or (type(value) is int and abs(value) <= sys.float_info.max)
        _require(is_number, value, kind, name)
        return float(value)
    if kind is int:
        _require(type(value) is int and abs(value) <= MAX_INT, value, kind, name)
        return value
    if kind in _NAMES:
        _require(type(value) is kind, value, kind, name)
        return value
    return _convert_object(value, wanted, name)


def _convert_to_one_of(value: Any, kinds: tuple[Any, ...], name: str) -> Any:
    for kind in kinds:
        try:
            return _convert(value, kind, name)
        except _MismatchError as error:
            last = error
    if len(kinds) == 2 and types.NoneType in kinds and value is not None:  # the other type has the better message
        _convert(value, next(kind for kind in kinds if kind is not types.NoneType), name)
    names = " or ".join(_NAMES.get(typing.get_origin(kind) or kind, "an object") for kind in kinds)
    raise _MismatchError(f"{_subject(name)} is {shorten(value)}; wanted {names}") from last


def _convert_object(value: Any, wanted: Any, name: str) -> Any:
    """Returns an object as a TypedDict or a dataclass."""
    _require(isinstance(value, dict), value, dict, name)
    hints, required = _keys(wanted)
    missing = [key for key in hints if key in required and key not in value]
    if missing:
        raise _MismatchError(f"{_subject(name)} lacks {missing[0]!r}; wanted the keys {', '.join(sorted(required))}")
    converted = {key: _convert(value[key], hint, _join(name, key)) for key, hint in hints.items() if key in value}
    if typing.is_typeddict(wanted):
        return value | converted
    unknown = [key for key in value if key not in hints]
    if unknown:
        raise _MismatchError(f"{_subject(name)} has the unknown key {shorten(unknown[0])}; wanted {', '.join(hints)}")
    return wanted(**converted)


@functools.cache
def _keys(wanted: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Returns ({key: type}, the required keys) of a TypedDict or a dataclass."""
    hints = typing.get_type_hints(wanted, include_extras=True)
    if typing.is_typeddict(wanted):
        optional = {key for key, hint in hints.items() if typing.get_origin(hint) is typing.NotRequired}
        plain = {key: typing.get_args(hint)[0] if key in optional else hint for key, hint in hints.items()}
        return plain, frozenset(wanted.__required_keys__) - optional
    fields = dataclasses.fields(wanted)
    without_default = (
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    )
    return {field.name: hints[field.name] for field in fields}, frozenset(without_default)


def _require(valid: bool, value: Any, kind: Any, name: str) -> None:
    if not valid:
        raise _MismatchError(f"{_subject(name)} is {shorten(value)}; wanted {_NAMES[kind]}")


def _subject(name: str) -> str:
    return name or "its content"


def _join(name: str, key: str) -> str:
    key = key if key.isidentifier() and len(key) <= SHOWN_CHARACTERS else shorten(key)
    return f"{name}.{key}" if name else key
