"""Blocks of rows: read once while they are needed, checked when they first arrive, bounded in memory and on disk."""

from __future__ import annotations

import pathlib
import threading

import invented_rows
import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset import block_reader as blocks
from electramed_jax.data.dataset import manifest
from electramed_jax.data.dataset.row_reader import SplitRows
from electramed_jax.data.dataset.sampler import EpochSampler

SHARD_ROWS = {"train": (400, 400, 130)}
BLOCK = 16
BLOCKS = 25 + 25 + 9
SHARD_1 = "pubmed-train.tfrecord-00001-of-00003"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", BLOCK)


@pytest.fixture(params=["local", "memory", "gs"])
def packed(request, folder_in) -> tuple[str, np.ndarray]:
    folder = folder_in(request.param)
    return folder, invented_rows.pack(folder, SHARD_ROWS)["train"]


@pytest.fixture
def reads(monkeypatch) -> list[tuple[str, int]]:
    """(file, first row) of each read of rows."""
    noted, read = [], tfrecord.read_records

    def read_and_note(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        noted.append((path.rsplit("/", 1)[-1], first))
        read(path, layout, first, into)

    monkeypatch.setattr(tfrecord, "read_records", read_and_note)
    return noted


@pytest.fixture
def checked_rows(monkeypatch) -> list[int]:
    """How many rows had their checksums compared, each time any had."""
    noted, damaged = [], tfrecord.RecordLayout.find_damaged

    def compare_and_note(self: tfrecord.RecordLayout, found: np.ndarray) -> np.ndarray:
        noted.append(len(found))
        return damaged(self, found)

    monkeypatch.setattr(tfrecord.RecordLayout, "find_damaged", compare_and_note)
    return noted


def open_rows(folder: str, **settings: object) -> SplitRows:
    return SplitRows(folder, manifest.read_manifest(folder), "train", **settings)


def plan(seed: int = 0) -> EpochSampler:
    return EpochSampler(930, 10, seed, block_rows=BLOCK, window_blocks=8)


def epoch(rows: SplitRows, number: int, seed: int = 0) -> np.ndarray:
    order = plan(seed)
    return np.concatenate([rows[order.rows(step)] for step in range(number * 93, (number + 1) * 93)])


def wanted(contents: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    order = plan(seed)
    return contents[np.concatenate([order.rows(step) for step in range(number * 93, (number + 1) * 93)])]


@pytest.mark.parametrize("kept", [1, 3, 24, 160])
def test_rows_are_those_asked_for_however_little_is_kept(packed, kept):
    folder, contents = packed
    rows = open_rows(folder, kept_blocks=kept)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    some = np.random.default_rng(0).integers(0, 930, 200)  # from everywhere, some of them twice
    np.testing.assert_array_equal(rows[some], contents[some])
    assert rows[np.array([], int)].shape == (0, invented_rows.T)
    rows.close()


def test_a_window_of_blocks_in_memory_makes_each_block_one_read_an_epoch(packed, reads):
    rows = open_rows(packed[0], kept_blocks=20)
    for number in range(3):
        reads.clear()
        epoch(rows, number)
        # A window may begin with blocks that the one before still holds.
        assert BLOCKS - 20 <= len(reads) == len(set(reads)) <= BLOCKS
    rows.close()


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_checksums_are_compared_when_a_block_is_first_touched_and_not_again(packed, checked_rows, reads):
    rows = open_rows(packed[0], kept_blocks=20)
    rows[np.array([5])]
    assert checked_rows == [BLOCK]
    epoch(rows, 0)
    assert sum(checked_rows) == 930
    epoch(rows, 1)
    assert sum(checked_rows) == 930 and len(reads) > BLOCKS
    rows.close()


@pytest.mark.parametrize("packed", ["memory", "gs"], indirect=True)
def test_what_comes_over_a_network_is_checked_each_time(packed, checked_rows):
    rows = open_rows(packed[0], kept_blocks=1)
    for _ in range(2):
        rows[np.array([5, 900])]
    assert checked_rows == [BLOCK, BLOCK] * 2
    rows.close()


def test_a_damaged_row_is_named_and_its_neighbours_are_not_held_against_it(packed):
    folder, contents = packed
    invented_rows.flip_byte(files.join(folder, SHARD_1), 37)
    rows = open_rows(folder, kept_blocks=2)
    near = np.array([400 + 36, 400 + 38])
    for _ in range(2):
        np.testing.assert_array_equal(rows[near], contents[near])
        with pytest.raises(UserError, match=f"{SHARD_1}: row 37 is damaged"):
            rows[np.array([0, 437, 436])]
        rows[np.array([10, 100, 200])]  # the damaged block leaves memory
    rows.close()


def test_a_row_that_is_mended_is_read_anew(packed):
    folder, contents = packed
    path = files.join(folder, SHARD_1)
    good = files.read_bytes(path)
    invented_rows.flip_byte(path, 37)
    rows = open_rows(folder)
    with pytest.raises(UserError, match="row 37 is damaged"):
        rows[np.array([437])]
    with files.atomic_write(path) as file:
        file.write(good)
    np.testing.assert_array_equal(rows[np.array([437])], contents[[437]])
    rows.close()


@pytest.mark.parametrize("packed", ["gs"], indirect=True)
def test_bytes_changed_on_the_way_are_fetched_again(packed, gcs):
    folder, contents = packed
    rows = open_rows(folder)
    gcs.fail(SHARD_1, "flip")
    np.testing.assert_array_equal(rows[np.array([437])], contents[[437]])
    gcs.fail(SHARD_1, "flip", "flip")
    with pytest.raises(UserError, match=f"{SHARD_1}: row .* is damaged"):
        rows[np.arange(416, 432)]
    np.testing.assert_array_equal(rows[np.arange(416, 432)], contents[416:432])
    rows.close()


@pytest.mark.parametrize("packed", ["gs"], indirect=True)
def test_an_epoch_on_failing_storage_is_the_local_one_row_for_row(packed, gcs):
    folder, contents = packed
    rows = open_rows(folder, kept_blocks=20)
    gcs.fail(".tfrecord-", "flip", *["503", "break", "silence"] * 20)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    assert gcs.failures == []
    rows.close()


@pytest.mark.parametrize("packed", ["gs"], indirect=True)
def test_an_epoch_of_remote_shards_costs_a_request_a_block_and_the_bytes_of_the_shards(packed, gcs):
    gcs.requests.clear()
    rows = open_rows(packed[0], kept_blocks=160)
    epoch(rows, 0)
    shards = {name: len(content) for name, content in gcs.objects.items() if ".tfrecord-" in name}
    assert len(gcs.downloads(".tfrecord-")) == BLOCKS
    assert sum(request.sent for request in gcs.downloads(".tfrecord-")) == sum(shards.values())
    others = [request for request in gcs.requests if ".tfrecord-" not in request.name]
    assert len(others) <= 12, "the manifest, the vocabulary and one listing, whatever the number of shards"
    rows.close()


@pytest.mark.parametrize("packed", ["memory", "gs"], indirect=True)
def test_with_a_cache_on_disk_the_second_epoch_and_the_next_run_read_nothing_remote(packed, reads, tmp_path):
    folder, contents = packed
    cache = DiskCache(str(tmp_path / "cache"), 1 << 20)
    rows = open_rows(folder, kept_blocks=8, cache=cache)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    assert len(set(reads)) == BLOCKS
    reads.clear()
    np.testing.assert_array_equal(epoch(rows, 1), wanted(contents, 1))
    rows.close()
    again = open_rows(folder, kept_blocks=8, cache=DiskCache(str(tmp_path / "cache"), 1 << 20))
    np.testing.assert_array_equal(epoch(again, 0), wanted(contents, 0))
    again.close()
    assert reads == []
    # what fills up in place is in the end the shard itself
    whole = {path.name.removesuffix(".part"): files.sha256(str(path)) for path in (tmp_path / "cache").iterdir()}
    assert whole == {shard.sha256: shard.sha256 for shard in manifest.read_manifest(folder).splits["train"].shards}


@pytest.mark.parametrize("packed", ["memory"], indirect=True)
def test_a_damaged_cache_is_noticed_and_mended(packed, reads, tmp_path):
    folder, contents = packed
    for round_ in range(2):
        rows = open_rows(folder, cache=DiskCache(str(tmp_path / "cache"), 1 << 20))
        np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
        rows.close()
        assert len(reads) == (BLOCKS if round_ == 0 else 3)
        reads.clear()
        for copy in (tmp_path / "cache").iterdir():
            invented_rows.flip_byte(str(copy), 50)  # one block of each of the three shards


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_local_shards_are_not_copied_to_the_cache(packed, tmp_path):
    (tmp_path / "cache").mkdir()
    rows = open_rows(packed[0], cache=DiskCache(str(tmp_path / "cache"), 1 << 20))
    epoch(rows, 0)
    rows.close()
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_expected_is_on_its_way_before_it_is_asked_for(packed, reads, monkeypatch):
    folder, contents = packed
    rows, read, begun = open_rows(folder), tfrecord.read_records, {first: threading.Event() for first in (96, 112, 128)}

    def read_and_tell(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        begun[first].set()
        read(path, layout, first, into)

    monkeypatch.setattr(tfrecord, "read_records", read_and_tell)
    rows.prefetch(np.arange(100, 130))
    assert all(event.wait(timeout=30) for event in begun.values())
    np.testing.assert_array_equal(rows[np.arange(100, 130)], contents[100:130])
    assert len(reads) == 3
    rows.close()


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_a_slow_read_does_not_spoil_the_block_that_takes_its_place(packed, monkeypatch):
    folder, contents = packed
    rows, read = open_rows(folder, kept_blocks=2), tfrecord.read_records
    others_done, slow_done = threading.Event(), threading.Event()

    def read_slowly(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        if first == 0:
            others_done.wait(timeout=0.2)
        read(path, layout, first, into)
        if first in (0, 192):  # 192 comes to stand where 0 would
            (slow_done if first == 0 else others_done).set()

    monkeypatch.setattr(tfrecord, "read_records", read_slowly)
    rows.prefetch(np.array([5]))
    wanted = np.array([100, 200])
    np.testing.assert_array_equal(rows[wanted], contents[wanted])
    assert slow_done.wait(timeout=30)
    np.testing.assert_array_equal(rows[wanted], contents[wanted])
    rows.close()


def test_an_expected_block_that_fails_is_no_error_until_it_is_asked_for(packed):
    folder, contents = packed
    rows = open_rows(folder)
    path = files.join(folder, SHARD_1)
    good = files.read_bytes(path)
    files.remove(path)
    rows.prefetch(np.array([437]))
    np.testing.assert_array_equal(rows[np.array([3])], contents[[3]])
    with pytest.raises(UserError, match=f"{SHARD_1}: no such file"):
        rows[np.array([437])]
    with files.atomic_write(path) as file:
        file.write(good)
    np.testing.assert_array_equal(rows[np.array([437])], contents[[437]])
    rows.close()


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_memory_does_not_grow_with_the_dataset(packed):
    folder, _ = packed
    size = tfrecord.record_size(invented_rows.T, "uint16")
    rows = open_rows(folder, kept_blocks=4)
    epoch(rows, 0)
    assert rows._blocks._records.nbytes == 4 * BLOCK * size
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert folder not in maps, "a mapped file counts as ours where memory is limited"
    rows.close()
