"""Trains the WordPiece vocabulary of `electramed vocab` on the training split of a documents folder."""

from __future__ import annotations

import tempfile
from typing import Any

from electramed_jax.data.tokenizer import extend_vocab, vocab, word_counts
from electramed_jax.data.tokenizer.wordpiece_trainer import train_wordpiece


def train_vocab(
    documents_dir: str,
    output_path: str,
    *,
    size: int,
    lower_case: bool = True,
    keep_accents: bool = False,
    extend: str | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Trains a vocabulary on the training split and writes it. The bytes do not depend on `workers`.

    The counts of words are in the folder for temporary files: 11 bytes for each distinct word of each part, measured on
    full texts.

    Args:
      size: number of tokens, those of `extend` included.
      lower_case: lower-case the text.
      keep_accents: keep the accents of lower-cased text.
      extend: vocab.txt to extend; its tokens keep their ids.
      workers: processes that count words (default: one per core).

    Returns:
      {"vocab", "size", "wanted", "sha256", "lower_case", "keep_accents", "distinct_words"}. "size" is below "wanted"
      if the corpus has no more pieces that occur twice.
    """
    old = None if extend is None else vocab.read_vocab(extend)
    if old is not None:
        extend_vocab.check_size(old, size)
    with tempfile.TemporaryDirectory(prefix="electramed-vocab-") as folder:
        counts = word_counts.count_documents(
            documents_dir, folder, lower_case=lower_case, keep_accents=keep_accents, workers=workers
        )
        tokens = train_wordpiece(counts, size) if old is None else extend_vocab.extend(old, counts, size)
        distinct = counts.distinct
    vocab.write_vocab(output_path, tokens)
    return {
        "vocab": output_path,
        "size": len(tokens),
        "wanted": size,
        "sha256": vocab.sha256(output_path),
        "lower_case": lower_case,
        "keep_accents": keep_accents,
        "distinct_words": distinct,
    }
