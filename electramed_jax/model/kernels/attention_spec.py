"""The static arguments of the attention kernels."""

from __future__ import annotations

from typing import NamedTuple


class AttentionSpec(NamedTuple):
    """Static arguments of an attention kernel. Hashable, so that it can be a non-differentiable argument."""

    head_size: int
    dropout_rate: float = 0.0  # of the attention probabilities
    paired_dropout: bool = False  # one hash decides two probabilities: `dropout_bits.paired_dropout_mask`; TPUs only
    interpret: str | None = None  # "tpu" or "gpu": runs that kernel in Pallas' interpret mode, on any machine; slow
