"""`Head`: the first bytes of an input, decompressed, and what they show of its format."""

from __future__ import annotations

import functools
import io
import json
import re
from collections import Counter

from electramed_jax.common.storage import files
from electramed_jax.data.readers import byte_stream, compression
from electramed_jax.data.readers.document import ReadErrors

HEAD_BYTES = 1 << 16  # decompressed
RAW_BYTES = 1 << 20  # read from the file: more than a block of bzip2, which gives no byte before it is complete

_MARKUP = re.compile(r"\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>)", re.DOTALL | re.IGNORECASE)
_ELEMENT = re.compile(r"\s*<(?:[\w.-]+:)?([A-Za-z_][\w.-]*)")
_JSON_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"(\s*:)?|[{}\[\]]')


class Head:
    """The first bytes of an input.

    Attributes:
      name: name of the file or archive member, without the ending of a compression, in lower case.
      data: at most HEAD_BYTES bytes, decompressed.
      complete: whether `data` is the whole input.
    """

    def __init__(self, name: str, data: bytes, complete: bool = False):
        self.name, self.data, self.complete = compression.strip_ending(name.lower()), data, complete

    @functools.cached_property
    def text(self) -> str:
        """The bytes as text."""
        return self.data.decode("utf-8", "replace")

    @property
    def is_binary(self) -> bool:
        """Whether the bytes are not text: they contain a zero."""
        return "\0" in self.text

    @functools.cached_property
    def lines(self) -> list[str]:
        """The complete lines that are not blank; also the last line of a complete input."""
        lines = self.text.split("\n")
        if not self.complete:
            lines.pop()
        return [line for line in (line.rstrip("\r") for line in lines) if line.strip()]

    @functools.cached_property
    def root(self) -> str:
        """The name of the first element of XML or HTML, without its prefix; "" for other text."""
        position = 0
        text = self.text
        while match := _MARKUP.match(text, position):
            position = match.end()
        match = _ELEMENT.match(text, position)
        return match[1] if match else ""

    @functools.cached_property
    def keys(self) -> frozenset[str]:
        """The keys of the first JSON object, and of the first object in an array; empty for other text."""
        start = self.text.lstrip("\ufeff \t\r\n")
        if not start.startswith(("{", "[")):
            return frozenset()
        depth, top, keys = 0, 2 if re.match(r"\[\s*\{", start) else 1, set()
        for token in _JSON_TOKEN.finditer(start):
            if token[0] in ("{", "["):
                depth += 1
            elif token[0] in ("}", "]"):
                depth -= 1
                if depth < top:
                    break
            elif token[2] and depth == top:
                keys.add(token[1])
        return frozenset(keys)

    @functools.cached_property
    def is_json_lines(self) -> bool:
        """Whether the first line is a complete JSON object; the name decides if the line is longer than HEAD_BYTES."""
        if not self.lines:
            return bool(self.keys) and self.name.endswith((".jsonl", ".ndjson"))
        try:
            return isinstance(json.loads(self.lines[0].removeprefix("\ufeff")), dict)
        except (ValueError, RecursionError):
            return False


def read_head(path: str) -> Head:
    """Reads the first bytes of a file.

    Raises:
      UserError: no such file.
    """
    raw = files.read_range(path, 0, RAW_BYTES)
    return make_head(path, raw, len(raw) < RAW_BYTES)


def make_head(name: str, raw: bytes, complete: bool) -> Head:
    """Returns the head of an input from its first bytes `raw`, compressed or not; damage is ignored."""
    ignored = ReadErrors(name, Counter(), strict=False, stream=io.BytesIO(raw))
    data = b""
    for chunk in byte_stream.read_chunks(ignored):
        data += chunk
        if len(data) > HEAD_BYTES:
            complete = False
            break
    return Head(name, data[:HEAD_BYTES], complete)
