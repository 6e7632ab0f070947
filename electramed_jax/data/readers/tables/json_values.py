"""JSON values of a file, one after the other in bounded memory: lines, an array, or a list inside an object.

Reasons: `bad_json` (not JSON; the rest of the file is not used), `long_record` (a value of more than
MAX_VALUE_BYTES; the rest of the file is not used), `truncated_json` (the file ends inside a value).
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Set
from typing import Any

from electramed_jax.data.readers import byte_stream, record_fields
from electramed_jax.data.readers.document import ReadErrors

MAX_VALUE_BYTES = 64 << 20  # characters in memory while a value is read

_SPACE = re.compile(r"[\s,\ufeff]*")
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*')


def read_values(errors: ReadErrors, lists: Set[str] = frozenset()) -> Iterator[Any]:
    """Yields the values of a file: each of several in a row, the elements of an array, or those of a list in an object.

    Args:
      errors: the file; damage is counted here.
      lists: keys of an object with the array of values, such as {"documents"}. An object under such a key is
        searched in the same way. An object without these keys is a value itself.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    buffer = _Buffer(errors)
    try:
        while buffer.peek():
            yield from _values(buffer, lists)
    except _DamagedJsonError as error:
        if not errors.truncated:
            errors.report_damaged(error.reason, 0, str(error))


def to_text(value: Any) -> str:
    """Returns a string or a number as text; "" for anything else."""
    return "" if isinstance(value, list) else record_fields.field_text(value)


def _values(buffer: _Buffer, lists: Set[str]) -> Iterator[Any]:
    if buffer.peek() == "[":
        yield from _elements(buffer)
    elif buffer.peek() == "{" and lists:
        yield from _members(buffer, lists)
    else:
        yield buffer.value()


def _elements(buffer: _Buffer) -> Iterator[Any]:
    buffer.skip("[")
    while (letter := buffer.peek()) != "]":
        if not letter:
            raise _DamagedJsonError("truncated_json", "file ends before its array does")
        yield buffer.value()
    buffer.skip("]")


def _members(buffer: _Buffer, lists: Set[str]) -> Iterator[Any]:
    """Yields the values of the lists in an object, or the object if it has none of them."""
    others: dict[str, Any] = {}
    found = False
    buffer.skip("{")
    while (letter := buffer.peek()) != "}":
        if not letter:
            raise _DamagedJsonError("truncated_json", "file ends before its object does")
        key = buffer.key()
        letter = buffer.peek()
        if key in lists and letter == "[":
            found = True
            yield from _elements(buffer)
        elif key in lists and letter == "{":
            found = True
            yield from _members(buffer, lists)
        elif found:
            buffer.value()
        else:
            others[key] = buffer.value()
    buffer.skip("}")
    if not found:
        yield others


class _DamagedJsonError(ValueError):
    """JSON that cannot be read on from here; `reason` is the count for `ReadErrors`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


class _Buffer:
    """Text of a file from the current position on; more of it is read as needed."""

    def __init__(self, errors: ReadErrors):
        self._chunks = byte_stream.read_chunks(errors)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._json = json.JSONDecoder()
        self._text, self._position, self._exhausted = "", 0, False

    def peek(self) -> str:
        """Returns the next character that is neither white space nor a comma, without taking it; "" at the end."""
        if self._position < len(self._text) and self._text[self._position] in "{[]}":
            return self._text[self._position]
        while True:
            match = _SPACE.match(self._text, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._read_more():
                return ""

    def skip(self, letter: str) -> None:
        """Takes one character, the next one."""
        assert self.peek() == letter
        self._position += 1

    def key(self) -> str:
        """Takes the key of an object with its colon, and returns it."""
        self.peek()
        while not (match := _KEY.match(self._text, self._position)):
            if not self._read_more():
                if ":" not in self._text[self._position :]:
                    raise _DamagedJsonError("truncated_json", "file ends inside an object")
                raise _DamagedJsonError("bad_json", "not valid JSON (a key of an object was expected)")
        self._position = match.end()
        return match[1]

    def value(self) -> Any:
        """Takes a whole value and returns it."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._position)
            except RecursionError as error:
                raise _DamagedJsonError("bad_json", "JSON is nested too deeply") from error
            except json.JSONDecodeError as error:
                if self._read_more():
                    continue
                if error.pos >= len(self._text.rstrip()) or error.msg.startswith("Unterminated string"):
                    raise _DamagedJsonError("truncated_json", "file ends inside a value") from error
                raise _DamagedJsonError("bad_json", f"not valid JSON ({error})") from error
            except ValueError as error:  # a number of too many digits
                raise _DamagedJsonError("bad_json", f"not valid JSON ({error})") from error
            if end == len(self._text) and not isinstance(value, dict | list) and self._read_more():
                continue  # a number may continue in the next chunk
            self._position = end
            return value

    def _read_more(self) -> bool:
        """Reads as much again as is in memory, at least a chunk; returns whether there was any."""
        self._text, self._position = self._text[self._position :], 0
        size = wanted = max(1, len(self._text))
        if size > MAX_VALUE_BYTES:
            raise _DamagedJsonError("long_record", f"a JSON value of more than {MAX_VALUE_BYTES >> 20} MiB")
        pieces = [self._text]
        while wanted > 0 and not self._exhausted:
            chunk = next(self._chunks, b"")
            self._exhausted = not chunk
            text = self._decoder.decode(chunk, final=self._exhausted)
            pieces.append(text)
            wanted -= len(text)
        self._text = "".join(pieces)
        return len(self._text) >= size and (len(pieces) > 1 and any(pieces[1:]))
