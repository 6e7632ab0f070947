"""Trains the WordPiece vocabulary of `electramed vocab` on the training split of a documents folder."""

from __future__ import annotations

from typing import Any

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.tokenizer import extend_vocab, vocab


def train_vocab(
    documents_dir: str, output_path: str, *, size: int, lower_case: bool = True, extend: str | None = None
) -> dict[str, Any]:
    """Trains a vocabulary on the training split and writes it.

    Args:
      size: number of tokens, those of `extend` included.
      extend: vocab.txt to extend; its tokens keep their ids.

    Returns:
      {"vocab", "size", "wanted", "sha256", "lower_case"}. "size" is below "wanted" if the corpus
      has no more pieces that occur twice.
    """
    texts = corpus_dir.Texts(documents_dir)
    if extend is None:
        count = corpus_dir.read_documents_info(documents_dir)["splits"]["train"]["documents"]
        tokens = vocab.train_wordpiece(texts, size, lower_case, count)
    else:
        tokens = extend_vocab.extend(vocab.read_vocab(extend), texts, size, lower_case)
    vocab.write_vocab(output_path, tokens)
    return {
        "vocab": output_path,
        "size": len(tokens),
        "wanted": size,
        "sha256": vocab.sha256(output_path),
        "lower_case": lower_case,
    }
