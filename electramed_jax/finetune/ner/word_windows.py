"""Words in windows of word pieces, and the logits of each word back from them.

A word is asked about at its first piece, in the one window that has words around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from electramed_jax.config.pretrain import SpecialIds
from electramed_jax.finetune.ner import windows
from electramed_jax.finetune.task.task import Outputs


class Example(NamedTuple):
    """A window, and where its answers belong.

    Attributes:
      input_ids: int32[n], with [CLS] and [SEP].
      asked: int64[w], places in `input_ids` of the first pieces of the words that are asked about.
      sentence: the number of the sentence.
      first: the number in it of the first such word.
    """

    input_ids: np.ndarray
    asked: np.ndarray
    sentence: int
    first: int


def examples(sentences: Sequence[Sequence[Sequence[int]]], max_length: int, special: SpecialIds) -> list[Example]:
    """The windows of sentences, each word of which is a list of at least one piece; longer ones lose their end."""
    room = max_length - 2
    made = []
    for number, sentence in enumerate(sentences):
        of_words = [ids[:room] for ids in sentence]
        for begin, stop, first, last in windows.cut([len(ids) for ids in of_words], room):
            starts = 1 + np.cumsum([0, *(len(ids) for ids in of_words[begin : stop - 1])])
            ids = [special.cls, *(piece for ids in of_words[begin:stop] for piece in ids), special.sep]
            made.append(Example(np.array(ids, np.int32), starts[first - begin : last - begin], number, first))
    return made


def logits(made: Sequence[Example], outputs: Outputs, lengths: Sequence[int]) -> list[np.ndarray]:
    """float[words, labels] of each sentence, of so many words each: the inverse of `examples`."""
    found: list[list[np.ndarray]] = [[] for _ in lengths]
    for example, of_pieces in zip(made, outputs, strict=True):
        found[example.sentence].append(of_pieces[example.asked])
    joined = [np.concatenate(parts) if parts else np.zeros((0, 0), np.float32) for parts in found]
    assert [len(one) for one in joined] == list(lengths)
    return joined
