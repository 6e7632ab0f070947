"""The shards of a dataset are those that its manifest describes, before and during a run."""

import pathlib
import shutil

import invented_rows
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.dataset import verify
from electramed_jax.data.dataset.dataset import open_dataset


@pytest.fixture
def dataset(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "packed")
    return open_dataset(str(tmp_path / "packed"))


def shard_paths(dataset) -> list[pathlib.Path]:
    (folder,), (manifest,) = dataset.folders, dataset.manifests
    return [pathlib.Path(folder) / shard.file for split in manifest.splits.values() for shard in split.shards]


def swap_rows(path: pathlib.Path, first: int, second: int, size: int) -> None:
    """Exchanges two records: the file stays valid, and has the same size."""
    data = bytearray(path.read_bytes())
    a, b = slice(first * size, (first + 1) * size), slice(second * size, (second + 1) * size)
    data[a], data[b] = data[b], data[a]
    path.write_bytes(data)


@pytest.fixture
def record_size(dataset) -> int:
    from electramed_jax.common.storage import tfrecord

    return tfrecord.record_size(dataset.manifest.row_length, dataset.manifest.dtype)


def test_an_untouched_dataset_passes(dataset):
    verify.verify_ends(dataset)
    verify.verify_shards(dataset)


def test_a_valid_shard_of_the_same_size_in_the_place_of_another_is_noticed_at_once(dataset, record_size):
    path = shard_paths(dataset)[0]
    swap_rows(path, 0, 1, record_size)
    open_dataset(dataset.folders[0])  # size and format are right
    with pytest.raises(UserError, match=f"{path.name}: damaged or replaced: .*first and last 64 KiB is .*, wanted "):
        verify.verify_ends(dataset)


def test_a_validation_shard_that_was_replaced_is_noticed(dataset, record_size):
    path = next(path for path in shard_paths(dataset) if "-validation" in path.name)
    swap_rows(path, 0, 1, record_size)
    with pytest.raises(UserError, match=f"{path.name}: damaged or replaced"):
        verify.verify_ends(dataset)


def test_each_process_verifies_its_own_part_and_all_parts_are_the_whole(dataset):
    number = len(shard_paths(dataset)) - 1
    invented_rows.flip_byte(str(shard_paths(dataset)[number]), 3)
    parts = 2
    for part in range(parts):
        if part == number % parts:
            with pytest.raises(UserError, match="damaged or replaced"):
                verify.verify_shards(dataset, part, parts)
        else:
            verify.verify_shards(dataset, part, parts)


def test_a_mismatch_in_the_middle_is_found_in_the_background(dataset, monkeypatch):
    invented_rows.flip_byte(str(shard_paths(dataset)[0]), 3)
    with verify.BackgroundVerifier(dataset) as verifier:
        verifier.wait()
        assert "its SHA-256 is" in str(verifier.error)


def test_a_dataset_without_recorded_ends_is_read_as_before(dataset):
    import dataclasses

    (manifest,) = dataset.manifests
    splits = {
        name: dataclasses.replace(split, shards=tuple(dataclasses.replace(s, ends_sha256="") for s in split.shards))
        for name, split in manifest.splits.items()
    }
    verify.verify_ends(dataclasses.replace(dataset, manifests=(dataclasses.replace(manifest, splits=splits),)))


def test_a_shard_that_is_replaced_during_a_run_is_noticed_and_an_equal_copy_accepted(dataset, record_size):
    watch = verify.DatasetWatch(dataset)
    watch.check()
    path = shard_paths(dataset)[0]
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.rename(path)
    watch.check()
    swap_rows(path, 0, 1, record_size)
    with pytest.raises(UserError, match=f"{path.name}: damaged or replaced: replaced while the run trains on it"):
        watch.check()
    path.unlink()
    with pytest.raises(UserError, match="removed while the run trains on it"):
        watch.check()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("lower_case", lambda value: not value),
        ("special", lambda value: value | {"mask": value["cls"]}),
        ("vocab_size", lambda value: value - 1),
        ("sources", lambda value: []),
    ],
)
def test_a_manifest_that_was_edited_is_refused(dataset, field, change):
    path = f"{dataset.folders[0]}/manifest.json"
    values = files.read_json(path)
    files.write_json(path, values | {field: change(values[field])})
    with pytest.raises(UserError, match=r"manifest.json: edited after packing"):
        open_dataset(dataset.folders[0])


@pytest.mark.parametrize(
    ("field", "change"),
    [("special", lambda value: value | {"mask": value["cls"]}), ("vocab_size", lambda value: value - 1)],
)
def test_a_manifest_without_a_digest_must_agree_with_the_vocabulary(dataset, field, change):
    """Datasets of earlier versions have no digest."""
    path = f"{dataset.folders[0]}/manifest.json"
    values = files.read_json(path)
    files.write_json(path, values | {"digest": "", field: change(values[field])})
    with pytest.raises(UserError, match=f"manifest.json: {field} is .*; wanted .*, as in vocab.txt"):
        open_dataset(dataset.folders[0])


def test_versions_of_remote_files_change_when_they_are_written(gcs):
    files.write_text("gs://bucket/folder/a", "one")
    before = files.versions("gs://bucket/folder")
    assert files.versions("gs://bucket/folder") == before
    files.write_text("gs://bucket/folder/a", "two")
    assert files.versions("gs://bucket/folder") != before
