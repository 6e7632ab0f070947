"""Packed folders of synthetic rows, all different, in any storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from electramed_jax.common.storage import files, tfrecord
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.data.tokenizer import vocab

T = 12


def pack(
    folder: str,
    shard_rows: Mapping[str, Sequence[int]],
    *,
    first_id: int = 1000,
    row_length: int = T,
    words: int = 9000,
    lower_case: bool = True,
) -> dict[str, np.ndarray]:
    """Writes a packed folder; returns the rows of each split, [rows, T].

    Args:
      shard_rows: rows of each shard of each split.
      first_id: the ids of all rows of all splits are consecutive from here.
      words: tokens of the vocabulary without the special ones.
    """
    tokens = [*vocab.SPECIAL_TOKENS, *(f"word{i}" for i in range(words))]
    vocab.write_vocab(files.join(folder, vocab.VOCAB_FILE), tokens)
    contents, splits, begin = {}, {}, first_id
    for split, counts in shard_rows.items():
        total = sum(counts)
        contents[split] = begin + np.arange(total * row_length).reshape(total, row_length)
        begin += total * row_length
        shards, first = [], 0
        for number, count in enumerate(counts):
            name = manifests.shard_name("pubmed", split, number, len(counts))
            with tfrecord.RowWriter(files.join(folder, name), row_length, "uint16") as writer:
                writer.write(contents[split][first : first + count])
            shards.append(manifests.Shard(name, count, writer.sha256))
            first += count
        splits[split] = manifests.Split(tuple(shards), total, total * row_length, total, 0, 1.0, 9.0)
    assert begin <= 1 << 16, "ids are uint16"
    manifest = manifests.Manifest(
        row_length=row_length,
        dtype="uint16",
        vocab_size=len(tokens),
        vocab_sha256=vocab.sha256(files.join(folder, vocab.VOCAB_FILE)),
        lower_case=lower_case,
        special=vocab.special_ids(tokens),
        splits=splits,
        sources=[{"file": f"{first_id}.xml", "kept": begin}],
        dropped={"empty": 1},
        length_histogram={str(row_length): begin},
        code_version="test",
    )
    manifests.write_manifest(folder, manifest)
    return contents


def flip_byte(path: str, row: int, row_length: int = T) -> None:
    """Changes one byte of a row of a shard in place."""
    size = tfrecord.record_size(row_length, "uint16")
    data = bytearray(files.read_bytes(path))
    data[row * size + size // 2] ^= 1
    with files.atomic_write(path) as file:
        file.write(data)
