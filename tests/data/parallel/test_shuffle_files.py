"""Rows sorted by slot: written by one task, read by slot from the files of all tasks."""

from __future__ import annotations

import numpy as np

from electramed_jax.data.parallel import shuffle_files

ROW = np.dtype([("slot", "<i4"), ("value", "<u8")])


def rows(*values: tuple[int, int]) -> np.ndarray:
    return np.array(list(values), ROW)


def test_a_range_of_slots_is_read_from_all_files_in_order(tmp_path):
    a, b, c = (str(tmp_path / name) for name in "abc")
    shuffle_files.write(a, rows((2, 10), (0, 11), (2, 12)), np.array([2, 0, 2]), 4)
    shuffle_files.write(b, rows((1, 20), (2, 21), (3, 22)), np.array([1, 2, 3]), 4)
    shuffle_files.write(c, rows(), np.empty(0, np.int64), 4)
    assert shuffle_files.read([a, b, c], ROW, 4, 2, 3).tolist() == [(2, 10), (2, 12), (2, 21)]
    assert shuffle_files.read([b, a], ROW, 4, 0, 2).tolist() == [(1, 20), (0, 11)]
    assert shuffle_files.read([c], ROW, 4, 0, 4).tolist() == shuffle_files.read([], ROW, 4, 0, 4).tolist() == []


def test_a_file_is_written_as_soon_as_there_are_enough_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(shuffle_files, "ROWS_AT_ONCE", 3)
    prefix = str(tmp_path / "rows")
    with shuffle_files.Writer(prefix, lambda rows: rows["slot"].astype(np.int64), 2) as writer:
        for number in range(8):
            writer.write(rows((number % 2, number)))
            assert len(list(tmp_path.iterdir())) == writer.files == (number + 1) // 3
    assert writer.files == 3
    paths = [shuffle_files.file_path(prefix, file) for file in range(writer.files)]
    assert shuffle_files.read(paths, ROW, 2, 1, 2)["value"].tolist() == [1, 3, 5, 7]
