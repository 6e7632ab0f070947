"""Records of lines with a tag, as MEDLINE and RIS have them: `TI  - A title`, continued on lines without a tag."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set

from electramed_jax.data.readers import byte_stream
from electramed_jax.data.readers.document import ReadErrors

Fields = dict[str, list[str]]  # tag -> its values in order


def read_records(
    errors: ReadErrors, tag: re.Pattern[str], used: Set[str], first: tuple[str, ...], last: str = ""
) -> Iterator[tuple[Fields, int]]:
    """Yields (fields, number of the first line) of each record.

    White space in a value, and between the lines of one, is one space. Lines before the first record are skipped.

    Args:
      errors: damage is counted here, also the bytes that were replaced.
      tag: matches the start of a line with a tag; group 1 is the tag, the value follows the match.
      used: tags of the fields that are returned; `first` among them.
      first: tags that begin a record; a record also ends at a blank line before another one.
      last: tag that ends a record, if there is one.
    """
    fields: Fields = {}
    values: list[str] = []
    start, repair = 0, ""
    for number, line, replaced in byte_stream.read_lines(errors):
        if match := tag.match(line):
            name = match[1]
            if name in first and (name in fields or not fields or name == first[0]):
                if fields:
                    yield _finish(fields, errors, start, repair), start
                fields, start, repair = {}, number, ""
            if not start:
                continue
            if name in used:
                values = fields.setdefault(name, [])
                values.append(line[match.end() :])
            else:
                values = []
            if name == last:
                yield _finish(fields, errors, start, repair), start
                fields, start = {}, 0
        elif start and values and line.strip():
            values[-1] += f" {line}"
        if start and replaced:
            repair = replaced
    if fields and not errors.truncated:
        yield _finish(fields, errors, start, repair), start


def _finish(fields: Fields, errors: ReadErrors, line: int, repair: str) -> Fields:
    if repair:
        byte_stream.report_replaced_bytes(errors, line, repair)
    return {tag: [" ".join(value.split()) for value in values] for tag, values in fields.items()}
