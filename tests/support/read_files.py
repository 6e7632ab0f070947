"""Reads one file with the reader that its content selects."""

from __future__ import annotations

import os
from collections import Counter

from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, ReadOptions


def read_file(
    path: str | os.PathLike, strict: bool = False, counts: Counter | None = None, **options: object
) -> tuple[list[Document], dict[str, int]]:
    """Returns (documents, drops) of a file; `options` are fields of `ReadOptions`, `counts` is updated by format."""
    drops: Counter = Counter()
    found = reader.read_documents(str(path), drops, strict, ReadOptions(**options), counts=counts)
    return list(found), dict(drops)
