"""Tests of the disk cache: it returns what it stored, respects its limit, and raises no error in a run."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from small_disk import fill, small_disk

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage.disk_cache import DiskCache

__all__ = ["small_disk"]  # a fixture

PAGE = 4096  # allocation unit of a file system, bytes
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def page(value: int) -> np.ndarray:
    return np.full(PAGE, value, np.uint8)


def read_page(cache: DiskCache, sha256: str, number: int) -> int | None:
    """Returns the value that fills a cached page, or None if the page is not cached."""
    into = np.empty(PAGE, np.uint8)
    if cache.read(sha256, number * PAGE, into) < PAGE or not into[0]:
        return None
    assert (into == into[0]).all()
    return int(into[0])


def on_disk(folder: pathlib.Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_ranges_are_read_back_in_this_process_and_the_next_and_holes_are_zeros(tmp_path):
    cache = DiskCache(str(tmp_path / "cache"), 1 << 20)
    assert read_page(cache, A, 0) is None
    cache.write(A, 5 * PAGE, page(6))
    cache.write(A, 2 * PAGE, page(3))
    for again in (cache, DiskCache(str(tmp_path / "cache"), 1 << 20)):
        assert [read_page(again, A, number) for number in range(7)] == [None, None, 3, None, None, 6, None]
        assert read_page(again, B, 5) is None
    assert on_disk(tmp_path / "cache") < 6 * PAGE  # the holes take nothing


def test_a_full_cache_stays_within_its_limit_keeps_its_ranges_and_warns_once(tmp_path, capsys):
    cache = DiskCache(str(tmp_path), 3 * PAGE)
    for number in range(10):
        cache.write(A, number * PAGE, page(number + 1))
    assert on_disk(tmp_path) <= 3 * PAGE
    assert [read_page(cache, A, number) for number in range(4)] == [1, 2, 3, None]
    assert capsys.readouterr().err.count("full (") == 1


def test_the_least_recently_used_file_is_removed_unless_this_process_uses_it(tmp_path):
    earlier = DiskCache(str(tmp_path), 3 * PAGE)
    for sha256, used in ((A, 2000), (B, 1000)):
        earlier.write(sha256, 0, page(1))
        os.utime(next(tmp_path.glob(f"{sha256}*")), (used, used))
    assert read_page(DiskCache(str(tmp_path), 3 * PAGE), B, 0) == 1  # another process has used it lately
    cache = DiskCache(str(tmp_path), 3 * PAGE)
    cache.write(C, 0, page(1))
    cache.write(C, PAGE, page(2))  # A goes
    assert [read_page(cache, sha256, 0) for sha256 in (A, B, C)] == [None, 1, 1]
    cache.write(C, 2 * PAGE, page(3))  # nothing goes: this process has read B
    assert [read_page(cache, sha256, 0) for sha256 in (A, B, C)] == [None, 1, 1] and read_page(cache, C, 2) is None


def test_several_processes_share_a_cache(tmp_path):
    program = """
import sys
import numpy as np
from electramed_jax.common.storage.disk_cache import DiskCache
cache, first = DiskCache(sys.argv[1], 1 << 24), int(sys.argv[2])
for number in range(first, 300, 2):
    cache.write("a" * 64, number * 4096, np.full(4096, number % 200 + 1, np.uint8))
    cache.write("b" * 64, number * 4096, np.full(4096, 7, np.uint8))
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(first)]) for first in (0, 1)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    cache = DiskCache(str(tmp_path), 1 << 24)
    assert [read_page(cache, A, number) for number in range(300)] == [number % 200 + 1 for number in range(300)]


def test_a_full_disk_ends_only_the_caching(small_disk, capsys):
    folder = small_disk(16 * PAGE)
    cache = DiskCache(str(folder), 1 << 30)
    cache.write(A, 0, page(1))
    fill(folder, leaving=2 * PAGE)
    for number in range(1, 9):
        cache.write(A, number * PAGE, page(1))
    assert read_page(cache, A, 0) == 1 and read_page(cache, A, 8) is None
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_removed_file_is_no_error(tmp_path):
    cache = DiskCache(str(tmp_path), 1 << 20)
    cache.write(A, 0, page(1))
    next(tmp_path.iterdir()).unlink()
    assert read_page(cache, A, 0) is None
    cache.write(A, 0, page(2))
    assert read_page(cache, A, 0) == 2


@pytest.mark.parametrize("directory", ["file/cache", "gs://bucket/cache"])
def test_an_unusable_folder_is_rejected_at_once(tmp_path, monkeypatch, directory):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{directory}: cannot be used as a cache .*name a local folder"):
        DiskCache(directory, 1 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
