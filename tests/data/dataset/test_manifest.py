"""Manifests: written and read back, readable by TFDS, and every mismatch with the folder is reported."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.tfrecord import RowWriter
from electramed_jax.data.dataset import manifest, verify
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.tokenizer import vocab

TOKENS = [*vocab.SPECIAL_TOKENS, "a", "b"]
ROWS = np.arange(6 * 32).reshape(6, 32) % 7


@pytest.fixture(params=["local", "memory", "gs"])
def packed(request, folder_in) -> tuple[str, manifest.Manifest]:
    """A complete packed folder and its manifest."""
    folder = folder_in(request.param)
    vocab.write_vocab(files.join(folder, "vocab.txt"), TOKENS)
    shards = []
    for number, rows in enumerate((ROWS[:4], ROWS[4:])):
        name = manifest.shard_name("pubmed", "train", number, 2)
        with RowWriter(files.join(folder, name), 32, "uint16") as writer:
            writer.write(rows)
        shards.append(manifest.Shard(name, writer.rows, writer.sha256))
    written = manifest.Manifest(
        row_length=32,
        dtype="uint16",
        vocab_size=len(TOKENS),
        vocab_sha256=vocab.sha256(files.join(folder, "vocab.txt")),
        lower_case=True,
        special=vocab.special_ids(TOKENS),
        splits={
            "train": manifest.Split(tuple(shards), 6, 180, 9, 1, 0.9375, 1.5),
            "validation": manifest.Split((), 0, 0, 0, 0, 0.0, 0.0),
        },
        sources=[{"file": "a.xml", "read": 10, "kept": 9, "dropped": {"empty": 1}}],
        dropped={"empty": 1},
        length_histogram={"32": 9},
        code_version="0.1.0",
    )
    written = manifest.write_manifest(folder, written)
    return folder, written


def change(folder: str, file: str, edit) -> None:
    data = files.read_bytes(files.join(folder, file))
    with files.atomic_write(files.join(folder, file)) as output:
        output.write(edit(data))


def test_a_manifest_is_read_back_as_written(packed):
    folder, written = packed
    assert manifest.read_manifest(folder) == written
    verify.verify_shards(Dataset((folder,), (written,)))


def test_shards_are_named_as_tfds_names_them():
    assert manifest.shard_name("pubmed", "train", 3, 64) == "pubmed-train.tfrecord-00003-of-00064"


@pytest.mark.parametrize(("size", "dtype"), [(7, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_ids_have_the_smallest_type_that_can_hold_them(size, dtype):
    assert manifest.dtype_for(size) == dtype


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_tfds_opens_the_folder_without_tensorflow(packed):
    import tensorflow_datasets as tfds

    info = tfds.builder_from_directory(packed[0]).info
    assert info.name == "pubmed"
    assert info.splits["train"].shard_lengths == [4, 2]
    assert info.features["input_ids"].shape == (32,)
    assert np.dtype(info.features["input_ids"].np_dtype) == np.uint16


def test_a_folder_without_a_manifest_is_not_a_dataset(packed):
    folder, _ = packed
    files.remove(files.join(folder, "manifest.json"))
    with pytest.raises(UserError, match=r"packing did not finish; run electramed pack"):
        manifest.read_manifest(folder)


def test_an_unknown_version_is_refused(packed):
    folder, _ = packed
    change(folder, "manifest.json", lambda d: d.replace(b'"format_version": 1', b'"format_version": 9'))
    with pytest.raises(UserError, match="format_version 9; this program reads 1"):
        manifest.read_manifest(folder)


@pytest.mark.parametrize("text", ["[]", "{}", '{"format_version": 1}', '{"format_version": 1, "splits": 3}'])
def test_json_that_is_not_a_manifest_is_refused(packed, text):
    folder, _ = packed
    files.write_text(files.join(folder, "manifest.json"), text)
    with pytest.raises(UserError, match=r"manifest\.json: "):
        manifest.read_manifest(folder)


def test_an_unknown_key_is_refused(packed):
    folder, written = packed
    value = {**dataclasses.asdict(written), "surprise": 1}
    files.write_text(files.join(folder, "manifest.json"), json.dumps(value))
    with pytest.raises(UserError, match="manifest.json: its content has the unknown key 'surprise'"):
        manifest.read_manifest(folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda m: m["splits"]["train"]["shards"][0].update(file="../../secret"), "names the shard '../../secret'"),
        (lambda m: m["splits"]["train"]["shards"][0].update(file="/etc/passwd"), "names the shard '/etc/passwd'"),
        (lambda m: m["splits"]["train"]["shards"][0].update(rows="4"), r"train.shards\[0\].rows is '4'"),
        (lambda m: m["splits"]["train"].update(rows=7), "train has 7 rows, its shards have 6"),
        (lambda m: m["splits"]["train"].pop("tokens"), "splits.train lacks 'tokens'"),
        (lambda m: m.update(row_length=0), "row_length is 0"),
        (lambda m: m.update(row_length=10**12), "row_length is 1000000000000"),
        (lambda m: m.update(dtype="float"), "dtype is 'float'; wanted uint16 or uint32"),
        (lambda m: m.update(length_histogram={"long": 1}), "length_histogram has the key 'long'"),
        (lambda m: m["sources"][0].update(kept="all"), "kept is 'all'"),
        (lambda m: m["special"].update(pad=None), "special.pad is None"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(packed, edit, reason):
    folder, written = packed
    value = json.loads(json.dumps(dataclasses.asdict(written)))
    edit(value)
    files.write_text(files.join(folder, "manifest.json"), json.dumps(value))
    with pytest.raises(UserError, match=rf"manifest\.json: .*{reason}.*; copy the packed folder again, or pack again"):
        manifest.read_manifest(folder)


def test_a_missing_shard_is_named(packed):
    folder, written = packed
    name = written.splits["train"].shards[1].file
    files.remove(files.join(folder, name))
    with pytest.raises(UserError, match=f"{name}: missing; copy"):
        manifest.read_manifest(folder)


def test_a_shard_cut_at_a_row_is_found_by_its_size(packed):
    folder, written = packed
    name = written.splits["train"].shards[0].file
    change(folder, name, lambda data: data[: len(data) // 4 * 3])
    with pytest.raises(UserError, match=rf"{name}: .*wanted .* \(4 rows\): cut short"):
        manifest.read_manifest(folder)


def test_a_flipped_byte_is_found_when_shards_are_verified(packed):
    folder, written = packed
    name = written.splits["train"].shards[1].file
    change(folder, name, lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:])
    assert manifest.read_manifest(folder) == written
    with pytest.raises(UserError, match=f"{name}: damaged"):
        verify.verify_shards(Dataset((folder,), (written,)))


def test_another_vocabulary_in_the_folder_is_refused(packed):
    folder, _ = packed
    vocab.write_vocab(files.join(folder, "vocab.txt"), [*TOKENS[:-1], "c"])
    with pytest.raises(UserError, match="not the vocabulary these rows were packed with"):
        manifest.read_manifest(folder)


def test_a_missing_vocabulary_is_refused(packed):
    folder, _ = packed
    files.remove(files.join(folder, "vocab.txt"))
    with pytest.raises(UserError, match=r"vocab\.txt: missing"):
        manifest.read_manifest(folder)
