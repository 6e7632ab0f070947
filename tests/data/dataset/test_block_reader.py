"""Blocks of rows: read once while needed, verified at the first read, bounded in memory and on disk."""

from __future__ import annotations

import pathlib
import threading

import invented_rows
import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.storage.disk_cache import DiskCache
from electramed_jax.data.dataset import block_reader, manifest
from electramed_jax.data.dataset.row_reader import SplitRows
from electramed_jax.data.dataset.sampler import EpochSampler

SHARD_ROWS = {"train": (400, 400, 130)}
BLOCK = 16
BLOCKS = 25 + 25 + 9
SHARD_1 = "pubmed-train.tfrecord-00001-of-00003"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(block_reader, "BLOCK_ROWS", BLOCK)


@pytest.fixture(params=["local", "memory", "gs"])
def packed(request, folder_in) -> tuple[str, np.ndarray]:
    folder = folder_in(request.param)
    return folder, invented_rows.pack(folder, SHARD_ROWS)["train"]


@pytest.fixture
def reads(monkeypatch) -> list[tuple[str, int]]:
    """Records (file, first row) of each read of rows."""
    recorded, read = [], tfrecord.read_records

    def read_and_record(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        recorded.append((path.rsplit("/", 1)[-1], first))
        read(path, layout, first, into)

    monkeypatch.setattr(tfrecord, "read_records", read_and_record)
    return recorded


@pytest.fixture
def verified_rows(monkeypatch) -> list[int]:
    """Records the number of rows of each comparison of checksums."""
    recorded, damaged = [], tfrecord.RecordLayout.find_damaged

    def find_and_record(self: tfrecord.RecordLayout, records: np.ndarray) -> np.ndarray:
        recorded.append(len(records))
        return damaged(self, records)

    monkeypatch.setattr(tfrecord.RecordLayout, "find_damaged", find_and_record)
    return recorded


def open_rows(folder: str, **settings: object) -> SplitRows:
    return SplitRows(folder, manifest.read_manifest(folder), "train", **settings)


def sampler(seed: int = 0) -> EpochSampler:
    return EpochSampler(930, 10, seed, block_rows=BLOCK, window_blocks=8)


def epoch(rows: SplitRows, number: int, seed: int = 0) -> np.ndarray:
    order = sampler(seed)
    return np.concatenate([rows[order.rows(step)] for step in range(number * 93, (number + 1) * 93)])


def wanted(contents: np.ndarray, number: int, seed: int = 0) -> np.ndarray:
    order = sampler(seed)
    return contents[np.concatenate([order.rows(step) for step in range(number * 93, (number + 1) * 93)])]


@pytest.mark.slow
@pytest.mark.parametrize("cached_blocks", [1, 3, 24, 160])
def test_the_requested_rows_are_read_for_any_number_of_cached_blocks(packed, cached_blocks):
    folder, contents = packed
    rows = open_rows(folder, cached_blocks=cached_blocks)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    some = np.random.default_rng(0).integers(0, 930, 200)  # from the whole split, some of them twice
    np.testing.assert_array_equal(rows[some], contents[some])
    assert rows[np.array([], int)].shape == (0, invented_rows.T)
    rows.close()


@pytest.mark.slow
def test_a_window_of_blocks_in_memory_makes_each_block_one_read_an_epoch(packed, reads):
    rows = open_rows(packed[0], cached_blocks=20)
    for number in range(3):
        reads.clear()
        epoch(rows, number)
        # A window may begin with blocks that are still cached from the previous one.
        assert BLOCKS - 20 <= len(reads) == len(set(reads)) <= BLOCKS
    rows.close()


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_checksums_of_a_local_block_are_compared_at_its_first_read_only(packed, verified_rows, reads):
    rows = open_rows(packed[0], cached_blocks=20)
    rows[np.array([5])]
    assert verified_rows == [BLOCK]
    epoch(rows, 0)
    assert sum(verified_rows) == 930
    epoch(rows, 1)
    assert sum(verified_rows) == 930 and len(reads) > BLOCKS
    rows.close()


@pytest.mark.parametrize("packed", ["memory", "gs"], indirect=True)
def test_blocks_from_a_network_are_verified_at_each_read(packed, verified_rows):
    rows = open_rows(packed[0], cached_blocks=1)
    for _ in range(2):
        rows[np.array([5, 900])]
    assert verified_rows == [BLOCK, BLOCK] * 2
    rows.close()


def test_a_damaged_row_is_named_and_other_rows_of_its_block_are_readable(packed):
    folder, contents = packed
    invented_rows.flip_byte(files.join(folder, SHARD_1), 37)
    rows = open_rows(folder, cached_blocks=2)
    near = np.array([400 + 36, 400 + 38])
    for _ in range(2):
        np.testing.assert_array_equal(rows[near], contents[near])
        with pytest.raises(UserError, match=f"{SHARD_1}: row 37 is damaged"):
            rows[np.array([0, 437, 436])]
        rows[np.array([10, 100, 200])]  # evicts the damaged block
    rows.close()


def test_a_repaired_row_is_read_again(packed):
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
def test_bytes_changed_in_transfer_are_fetched_again(packed, gcs):
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
def test_an_epoch_on_failing_storage_has_the_rows_of_a_local_one(packed, gcs):
    folder, contents = packed
    rows = open_rows(folder, cached_blocks=20)
    gcs.fail(".tfrecord-", "flip", *["503", "break", "silence"] * 20)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    assert gcs.failures == []
    rows.close()


@pytest.mark.parametrize("packed", ["gs"], indirect=True)
def test_an_epoch_of_remote_shards_takes_one_request_per_block_and_the_bytes_of_the_shards(packed, gcs):
    gcs.requests.clear()
    rows = open_rows(packed[0], cached_blocks=160)
    epoch(rows, 0)
    shards = {name: len(content) for name, content in gcs.objects.items() if ".tfrecord-" in name}
    assert len(gcs.downloads(".tfrecord-")) == BLOCKS
    assert sum(request.sent for request in gcs.downloads(".tfrecord-")) == sum(shards.values())
    others = [request for request in gcs.requests if ".tfrecord-" not in request.name]
    assert len(others) <= 12, "the manifest, the vocabulary and one listing, whatever the number of shards"
    rows.close()


@pytest.mark.slow
@pytest.mark.parametrize("packed", ["memory", "gs"], indirect=True)
def test_with_a_cache_on_disk_the_second_epoch_and_the_next_run_read_nothing_remote(packed, reads, tmp_path):
    folder, contents = packed
    cache = DiskCache(str(tmp_path / "cache"), 1 << 20)
    rows = open_rows(folder, cached_blocks=8, cache=cache)
    np.testing.assert_array_equal(epoch(rows, 0), wanted(contents, 0))
    assert len(set(reads)) == BLOCKS
    reads.clear()
    np.testing.assert_array_equal(epoch(rows, 1), wanted(contents, 1))
    rows.close()
    again = open_rows(folder, cached_blocks=8, cache=DiskCache(str(tmp_path / "cache"), 1 << 20))
    np.testing.assert_array_equal(epoch(again, 0), wanted(contents, 0))
    again.close()
    assert reads == []
    # the cached files are equal to the shards
    whole = {path.name.removesuffix(".part"): files.sha256(str(path)) for path in (tmp_path / "cache").iterdir()}
    assert whole == {shard.sha256: shard.sha256 for shard in manifest.read_manifest(folder).splits["train"].shards}


@pytest.mark.parametrize("packed", ["memory"], indirect=True)
def test_a_damaged_cache_is_detected_and_repaired(packed, reads, tmp_path):
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


def test_prefetched_blocks_are_read_before_they_are_requested(packed, reads, monkeypatch):
    folder, contents = packed
    rows, read, started = (
        open_rows(folder),
        tfrecord.read_records,
        {first: threading.Event() for first in (96, 112, 128)},
    )

    def read_and_signal(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        started[first].set()
        read(path, layout, first, into)

    monkeypatch.setattr(tfrecord, "read_records", read_and_signal)
    rows.prefetch(np.arange(100, 130))
    assert all(event.wait(timeout=30) for event in started.values())
    np.testing.assert_array_equal(rows[np.arange(100, 130)], contents[100:130])
    assert len(reads) == 3
    rows.close()


@pytest.mark.parametrize("packed", ["local"], indirect=True)
def test_a_slow_read_does_not_overwrite_the_next_block_in_its_slot(packed, monkeypatch):
    folder, contents = packed
    rows, read = open_rows(folder, cached_blocks=2), tfrecord.read_records
    others_done, slow_done = threading.Event(), threading.Event()

    def read_slowly(path: str, layout: tfrecord.RecordLayout, first: int, into: np.ndarray) -> None:
        if first == 0:
            others_done.wait(timeout=0.2)
        read(path, layout, first, into)
        if first in (0, 192):  # the block of row 192 gets the slot of the block of row 0
            (slow_done if first == 0 else others_done).set()

    monkeypatch.setattr(tfrecord, "read_records", read_slowly)
    rows.prefetch(np.array([5]))
    wanted = np.array([100, 200])
    np.testing.assert_array_equal(rows[wanted], contents[wanted])
    assert slow_done.wait(timeout=30)
    np.testing.assert_array_equal(rows[wanted], contents[wanted])
    rows.close()


def test_a_failed_prefetch_is_an_error_only_when_the_block_is_requested(packed):
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
    rows = open_rows(folder, cached_blocks=4)
    epoch(rows, 0)
    assert rows._blocks._records.nbytes == 4 * BLOCK * size
    maps = pathlib.Path("/proc/self/maps").read_text()
    assert folder not in maps, "a mapped file counts toward the memory limit of the process"
    rows.close()
