"""From XML to packed rows in remote storage: the bytes are equal to those of a local build."""

from __future__ import annotations

import pytest

from electramed_jax.common.storage import files
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing.build import pack
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer.train_vocab import train_vocab

pytestmark = pytest.mark.slow


def build_all(root: str) -> manifest.Manifest:
    inputs, documents, vocab, packed = (files.join(root, n) for n in ("xml", "documents", "vocab.txt", "packed"))
    pubmed_xml.write_pubmed_xml(inputs, articles=60, num_files=2)
    prepare([files.join(inputs, "*.xml.gz")], documents, FilterConfig(validation=0.1, test=0.0), workers=1)
    train_vocab(documents, vocab, size=400, workers=1)
    return pack(documents, vocab, packed, row_length=32, workers=1)


def files_of(folder: str) -> dict[str, bytes]:
    return {name: files.read_bytes(files.join(folder, name)) for name in files.sizes(folder)}


def test_prepare_vocab_and_pack_write_the_same_bytes_to_remote_storage_as_to_disk(tmp_path, gcs):
    local = build_all(str(tmp_path))
    for part, kinds in ((".work", ["503", "silence"] * 3), ("documents", ["break", "503"]), ("packed", ["503"] * 4)):
        gcs.fail(part, *kinds)
    assert build_all("gs://bucket/deep") == local
    assert gcs.failures == []
    assert files_of("gs://bucket/deep/packed") == files_of(str(tmp_path / "packed"))
    scratch = [name for name in gcs.objects if ".work" in name or ".tmp" in name]
    assert scratch == [], "scratch files are removed"
    assert build_all("memory://deep") == local
