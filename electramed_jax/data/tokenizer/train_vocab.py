"""From files to training rows in three steps, each a folder or file that the next one takes.

prepare(inputs, documents_dir)              text, cleaned, split, deduplicated
train_vocab(documents_dir, vocab_path)      its WordPiece vocabulary
pack(documents_dir, vocab_path, rows_dir)   rows of token ids with a manifest
"""

from __future__ import annotations

from typing import Any

from electramed_jax.data.corpus import corpus_dir as corpus
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.packing.build import pack
from electramed_jax.data.tokenizer import extend_vocab as vocab_extend
from electramed_jax.data.tokenizer import vocab

__all__ = ["pack", "prepare", "train_vocab"]


def train_vocab(
    documents_dir: str, output_path: str, *, size: int, lower_case: bool = True, extend: str | None = None
) -> dict[str, Any]:
    """Trains a vocabulary on the training split and writes it.

    Args:
      extend: vocab.txt whose tokens come first, with their ids; `size` counts them.

    Returns:
      {"vocab", "size", "wanted", "sha256", "lower_case"}; size is below wanted where the corpus
      has no more pieces that occur twice.
    """
    texts = corpus.Texts(documents_dir)
    if extend is None:
        count = corpus.read(documents_dir)["splits"]["train"]["documents"]
        tokens = vocab.train(texts, size, lower_case, count)
    else:
        tokens = vocab_extend.extend(vocab.read(extend), texts, size, lower_case)
    vocab.write(output_path, tokens)
    return {
        "vocab": output_path,
        "size": len(tokens),
        "wanted": size,
        "sha256": vocab.sha256(output_path),
        "lower_case": lower_case,
    }
