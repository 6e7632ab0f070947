"""Model inputs of texts and pairs of texts, truncated so that the placeholders of a relation are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.text_classification import placeholders
from electramed_jax.finetune.text_classification.tables import Record


class Inputs(NamedTuple):
    """The inputs of records.

    Attributes:
      input_ids: int32[n] per record: [CLS] A [SEP] or [CLS] A [SEP] B [SEP].
      truncated: whether the record was truncated.
      lost_placeholders: number of truncated records that lost a placeholder.
    """

    input_ids: list[np.ndarray]
    truncated: list[bool]
    lost_placeholders: int


def make_inputs(records: Sequence[Record], names: Sequence[str], tokenizer: Tokenizer, max_length: int) -> Inputs:
    """Tokenizes and truncates records.

    Args:
      names: placeholders, such as "@GENE$".
      max_length: maximum word pieces of an input.
    """
    first = tokenizer.encode_batch([record.text for record in records])
    second = tokenizer.encode_batch([record.second for record in records])
    cls, sep = [tokenizer.special.cls], [tokenizer.special.sep]
    # First and last word piece of each placeholder: the placeholder if it is whole, else @ and $.
    marks = sorted({int(ids[end]) for ids in tokenizer.encode_batch(names) for end in (0, -1)})
    input_ids, truncated, lost = [], [], 0
    for record, a, b in zip(records, first, second, strict=True):
        room = max_length - (3 if record.second else 2)
        truncated.append(len(a) + len(b) > room)
        if truncated[-1]:
            before = np.isin(a, marks).sum()
            a, b = truncate(a, b, room, marks)
            lost += int(np.isin(a, marks).sum() < before)
        input_ids.append(np.array([*cls, *a, *sep, *([*b, *sep] if record.second else [])], np.int32))
    return Inputs(input_ids, truncated, lost)


def check_placeholders(
    records: Sequence[Record], names: Sequence[str], tokenizer: Tokenizer, reject: Callable[[int, str], NoReturn]
) -> None:
    """Calls `reject(line, why)` for a placeholder with an [UNK] piece: two of them could be identical inputs."""
    unk = tokenizer.special.unk
    unknown = [name for name, ids in zip(names, tokenizer.encode_batch(names), strict=True) if unk in ids]
    for record in records if unknown else ():
        for name in unknown:
            if name in record.text or name in record.second:
                reject(
                    record.line, f"the vocabulary lacks pieces for the placeholder {name}, which would be read as [UNK]"
                )


def placeholder_names(records: Sequence[Record]) -> list[str]:
    """Returns the placeholders of all texts, sorted."""
    return placeholders.find_placeholders(text for record in records for text in (record.text, record.second))


def truncate(a: np.ndarray, b: np.ndarray, room: int, marks: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the word pieces of one or two texts, truncated to `room` in total.

    Of a pair, the longer text loses its end until both have the same length. Of a single text (`b` is empty), the part
    around its first and last `marks` piece is kept; if these are too far apart, the parts around each of them, half of
    the room for each; without such a piece the beginning.
    """
    if len(b):
        length = min(len(a), max(room - len(b), room - room // 2))
        return a[:length], b[: room - length]
    marked = np.flatnonzero(np.isin(a, marks))
    if not len(marked):
        return a[:room], b
    first, last = int(marked[0]), int(marked[-1])
    if last - first < room:
        begin = max(0, min((first + last + 1 - room) // 2, len(a) - room))
        return a[begin : begin + room], b
    left, right = room // 2, room - room // 2
    begin = max(0, first - left // 2)
    stop = min(len(a), last + 1 + right // 2)
    return np.concatenate([a[begin : begin + left], a[stop - right : stop]]), b
