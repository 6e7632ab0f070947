"""Token ids of the special tokens."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Token ids of `[PAD] [UNK] [CLS] [SEP] [MASK]`. The defaults are SciVocab's."""

    pad: int = 0
    unk: int = 101
    cls: int = 102
    sep: int = 103
    mask: int = 104
