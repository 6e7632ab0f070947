"""Several packed folders as one dataset: they must have one format, and the merged manifest covers all of them."""

from __future__ import annotations

import dataclasses

import invented_rows
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.dataset import dataset, verify
from electramed_jax.data.dataset import manifest as manifests

SHARD_ROWS = {"train": (20, 10), "validation": (5,)}


@pytest.fixture(params=["local", "memory"])
def two(request, folder_in) -> tuple[str, str]:
    """Two folders of one format; the second has another split in addition."""
    folder = folder_in(request.param)
    names = files.join(folder, "abstracts"), files.join(folder, "full_text")
    invented_rows.pack(names[0], SHARD_ROWS)
    invented_rows.pack(names[1], {"train": (7,), "test": (3,)}, first_id=3000)
    return names


def test_the_manifest_of_one_folder_is_its_own(two):
    found = dataset.open_dataset(two[0] + "/")
    assert found.folders == (two[0],) and found.manifest == manifests.read_manifest(two[0])


def test_the_manifest_of_several_folders_has_sums_and_full_paths(two):
    found = dataset.open_dataset(f"{two[0]}, {two[1]}")
    manifest = found.manifest
    assert manifest.name == "abstracts + full_text"
    assert {name: split.rows for name, split in manifest.splits.items()} == {"train": 37, "validation": 5, "test": 3}
    train = manifest.splits["train"]
    assert [shard.file.removeprefix(two[0][: -len("abstracts")]) for shard in train.shards] == [
        "abstracts/pubmed-train.tfrecord-00000-of-00002",
        "abstracts/pubmed-train.tfrecord-00001-of-00002",
        "full_text/pubmed-train.tfrecord-00000-of-00001",
    ]
    assert (train.tokens, train.documents, train.fill_fraction) == (37 * invented_rows.T, 37, 1.0)
    assert [source["folder"] for source in manifest.sources] == list(two)
    assert manifest.dropped == {"empty": 2}
    assert found.num_rows("train") == (30, 7) and found.num_rows("test") == (0, 3)


def test_the_unigram_cross_entropy_of_several_folders_is_their_mean_weighted_by_tokens(two):
    manifest = manifests.read_manifest(two[1])
    better = dataclasses.replace(manifest.splits["train"], unigram_cross_entropy=5.0)
    manifests.write_manifest(two[1], dataclasses.replace(manifest, splits=manifest.splits | {"train": better}))
    found = dataset.open_dataset(",".join(two)).manifest.splits["train"]
    assert found.unigram_cross_entropy == pytest.approx((30 * 9.0 + 7 * 5.0) / 37)


def test_the_merged_manifest_can_be_written_and_read(two, tmp_path):
    manifest = dataset.open_dataset(",".join(two)).manifest
    files.write_json(str(tmp_path / "dataset.json"), dataclasses.asdict(manifest))
    assert manifests.load_manifest(str(tmp_path / "dataset.json")) == manifest


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"words": 9001}, r"different vocabularies \(9,005 and 9,006 tokens\).*with the other's --vocab"),
        ({"row_length": 16}, r"different row lengths \(12 and 16 ids\).*with the other's --max_seq_length"),
        ({"lower_case": False}, r"different casings \(lower-cased: True and False\).*with the other's --cased"),
    ],
)
def test_folders_of_different_formats_are_both_named_with_the_flag_to_use(two, changed, message):
    files.remove(two[1])
    invented_rows.pack(two[1], {"train": (7,)}, **changed)
    with pytest.raises(UserError, match=f"^{two[0]} and {two[1]} have {message}"):
        dataset.open_dataset(",".join(two))


def test_a_folder_named_twice_is_an_error_that_suggests_a_weight(two):
    with pytest.raises(UserError, match=f"{two[0]} is named twice.*larger weight"):
        dataset.open_dataset(f"{two[0]},{two[1]},{two[0]}/")


def test_a_damaged_shard_is_found_in_any_folder(two):
    found = dataset.open_dataset(",".join(two))
    verify.verify_shards(found)
    invented_rows.flip_byte(found.manifest.splits["train"].shards[2].file, 0)
    with pytest.raises(UserError, match="full_text/pubmed-train.* damaged"):
        verify.verify_shards(found)
