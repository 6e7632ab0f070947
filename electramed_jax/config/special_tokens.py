"""Token ids of the special tokens."""

from __future__ import annotations

import dataclasses

from electramed_jax.config.fields import NON_NEGATIVE, setting


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Token ids of `[PAD] [UNK] [CLS] [SEP] [MASK]`. The defaults are SciVocab's."""

    pad: int = setting(0, "token id of [PAD]", NON_NEGATIVE)
    unk: int = setting(101, "token id of [UNK]", NON_NEGATIVE)
    cls: int = setting(102, "token id of [CLS]", NON_NEGATIVE)
    sep: int = setting(103, "token id of [SEP]", NON_NEGATIVE)
    mask: int = setting(104, "token id of [MASK]", NON_NEGATIVE)
