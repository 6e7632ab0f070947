"""Damaged JSON is an error of one line that names the file, what is wrong and what to do; never a traceback."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NotRequired, TypedDict

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, json_values


class Size(TypedDict):
    width: int
    height: NotRequired[float | None]


@dataclasses.dataclass(frozen=True)
class Shard:
    file: str
    rows: int = 0


def read(data: str | bytes, wanted: Any = Any, **options: Any) -> Any:
    return json_values.parse_json(data, "a.json", wanted, advice="write it again", **options)


def message(data: str | bytes, wanted: Any = Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(data, wanted, **options)
    assert "\n" not in str(error.value) and str(error.value).endswith("; write it again")
    return str(error.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a": 1,\n "b": }', "a.json, line 2, column 7: not valid JSON"),
        ('{"a": [1, 2', "not valid JSON"),
        ("", "a.json: empty"),
        (b" \n", "a.json: empty"),
        (b'{"a": "\xff"}', "a.json: not UTF-8 text (byte 7)"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("[" * 200 + "]" * 200, "nested more than 100 deep"),
        ('{"a":' * 150 + "1" + "}" * 150, "nested more than 100 deep"),
        ("9" * 10_000, "a whole number of thousands of digits"),
        ('{"a": NaN}', "the number NaN"),
        ("[-Infinity]", "the number -Infinity"),
        ("1e999", "the number 1e999 is too large"),
        (r'{"a": "\ud800"}', "half of a surrogate pair"),
        (r'{"\udfff": 1}', "half of a surrogate pair"),
    ],
)
def test_text_that_is_not_json_is_an_error_of_one_line(data, reason):
    assert reason in message(data)


def test_a_line_of_a_file_is_named_by_its_number():
    assert message('{"a" 1}', line=7).startswith("a.json, line 7, column 6: not valid JSON")


def test_what_python_writes_for_numbers_that_are_not_finite_can_be_allowed():
    assert read("[Infinity]", finite=False) == [float("inf")]


def test_valid_text_is_read_with_byte_order_mark_emoji_and_100_levels():
    assert read(b"\xef\xbb\xbf[1]") == [1]
    assert read(r'"\ud83d\ude00"') == "\U0001f600"
    assert read("[" * 100 + "]" * 100)
    assert read(json.dumps("[" * 1000)) == "[" * 1000, "brackets in a text are no nesting"


@pytest.mark.parametrize(
    ("data", "wanted", "value"),
    [
        ('{"width": 3, "colour": "red"}', Size, {"width": 3, "colour": "red"}),
        ('{"width": 3, "height": 2}', Size, {"width": 3, "height": 2.0}),
        ('{"width": 3, "height": null}', Size, {"width": 3, "height": None}),
        ('{"file": "x"}', Shard, Shard("x")),
        ('[{"file": "x", "rows": 2}]', tuple[Shard, ...], (Shard("x", 2),)),
        ('{"a": [1, 2]}', dict[str, list[int]], {"a": [1, 2]}),
        ("1", float, 1.0),
        ("null", int | None, None),
    ],
)
def test_a_value_of_the_wanted_type_is_converted(data, wanted, value):
    got = read(data, wanted)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    ("data", "wanted", "reason"),
    [
        ("[]", Size, "a.json: its content is []; wanted an object"),
        ("{}", Size, "its content lacks 'width'; wanted the keys width"),
        ('{"width": "3"}', Size, "width is '3'; wanted a whole number"),
        ('{"width": true}', Size, "width is True; wanted a whole number"),
        ('{"width": 3.0}', Size, "width is 3.0; wanted a whole number"),
        ('{"width": 3, "height": "x"}', Size, "height is 'x'; wanted a number"),
        (f'{{"width": {2**63}}}', Size, f"width is {2**63}; wanted a whole number of at most 63 bits"),
        (f"[{'9' * 400}]", list[float], "[0] is 999"),
        ('{"a b": 1}', dict[str, str], "'a b' is 1; wanted a text"),
        ('[{"file": "x", "row": 2}]', list[Shard], "[0] has the unknown key 'row'; wanted file, rows"),
        ('[{"rows": 2}]', list[Shard], "[0] lacks 'file'"),
        ('{"a": {"b": [1, null]}}', dict[str, dict[str, list[int]]], "a.b[1] is None; wanted a whole number"),
        (json.dumps("x" * 500), int, "...; wanted a whole number"),
    ],
)
def test_another_type_is_named_with_its_key_and_the_value(data, wanted, reason):
    text = message(data, wanted)
    assert reason in text and len(text) < 200


def test_a_file_is_read_as_the_wanted_type(tmp_path):
    path = str(tmp_path / "sizes.json")
    files.write_json(path, {"width": 4})
    assert files.read_json(path, Size)["width"] == 4
    with pytest.raises(UserError, match=r"sizes\.json: its content lacks 'file'.*get an undamaged copy"):
        files.read_json(path, Shard)
