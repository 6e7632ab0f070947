"""Texts and pairs of texts to rows of word pieces, cut so that what they are about stays in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import numpy as np

from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune.text_classification import placeholders
from electramed_jax.finetune.text_classification.tables import Record


class Inputs(NamedTuple):
    """Of each record int32[n], [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; whether it was cut; and how many of those lost a
    placeholder by it."""

    input_ids: list[np.ndarray]
    truncated: list[bool]
    lost_placeholders: int


def make_inputs(records: Sequence[Record], names: Sequence[str], tokenizer: Tokenizer, max_length: int) -> Inputs:
    """Args:
    names: of the placeholders, such as "@GENE$".
    """
    first = tokenizer.encode_batch([record.text for record in records])
    second = tokenizer.encode_batch([record.second for record in records])
    cls, sep = [tokenizer.special.cls], [tokenizer.special.sep]
    # First and last pieces: themselves, or @ and $.
    marking = sorted({int(ids[end]) for ids in tokenizer.encode_batch(names) for end in (0, -1)})
    input_ids, cuts, lost = [], [], 0
    for record, a, b in zip(records, first, second, strict=True):
        room = max_length - (3 if record.second else 2)
        cuts.append(len(a) + len(b) > room)
        if cuts[-1]:
            marks = np.isin(a, marking).sum()
            a, b = truncate(a, b, room, marking)
            lost += int(np.isin(a, marking).sum() < marks)
        input_ids.append(np.array([*cls, *a, *sep, *([*b, *sep] if record.second else [])], np.int32))
    return Inputs(input_ids, cuts, lost)


def check_placeholders(
    records: Sequence[Record], names: Sequence[str], tokenizer: Tokenizer, reject: Callable[[int, str], NoReturn]
) -> None:
    """Calls `reject(line, why)` where a placeholder is unknown to the vocabulary: two of them would look alike."""
    unk = tokenizer.special.unk
    unknown = [name for name, ids in zip(names, tokenizer.encode_batch(names), strict=True) if unk in ids]
    for record in records if unknown else ():
        for name in unknown:
            if name in record.text or name in record.second:
                reject(
                    record.line, f"the vocabulary lacks pieces for the placeholder {name}, which would be read as [UNK]"
                )


def placeholder_names(records: Sequence[Record]) -> list[str]:
    """The placeholders of texts."""
    return placeholders.find_placeholders(text for record in records for text in (record.text, record.second))


def truncate(a: np.ndarray, b: np.ndarray, room: int, marking: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Two texts' pieces, `room` together: of a pair the longer loses its end until both are of one length.

    A text by itself is cut around what stands between its first and last `marking` piece, where it has any.
    """
    if len(b):
        length = min(len(a), max(room - len(b), room - room // 2))
        return a[:length], b[: room - length]
    marked = np.flatnonzero(np.isin(a, marking))
    if not len(marked):
        return a[:room], b
    first, last = int(marked[0]), int(marked[-1])
    begin = first if last - first >= room else (first + last + 1 - room) // 2
    begin = max(0, min(begin, len(a) - room))
    return a[begin : begin + room], b
