from __future__ import annotations

import uuid

import numpy as np
import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.storage.tfrecord import RowFile, RowWriter

ROWS = np.arange(5 * 32).reshape(5, 32) * 7 % 65_536


@pytest.fixture(params=["local", "memory"])
def path(request, tmp_path) -> str:
    """Returns a path on disk or in fsspec's memory file system, a substitute for remote storage."""
    folder = str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"
    return f"{folder}/rows"


def write(path: str, rows: np.ndarray = ROWS, dtype: str = "uint16") -> RowWriter:
    with RowWriter(path, rows.shape[1], dtype) as writer:
        writer.write(rows[:2])
        writer.write(rows[2:])
    return writer


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("indices", [[0], [4, 0, 2], [1, 1, 3], [], slice(1, 4), slice(None), np.array([3, 4])])
def test_rows_are_returned_in_the_requested_order(path, dtype, indices):
    write(path, dtype=dtype)
    file = RowFile(path, 32, dtype)
    wanted = ROWS[np.array(indices, int) if isinstance(indices, list) else indices]
    got = file[indices]
    assert len(file) == 5
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted)


def test_the_writer_reports_its_rows_and_digest(path):
    writer = write(path)
    assert writer.rows == 5
    assert writer.sha256 == files.sha256(path)


@pytest.mark.parametrize(("row_length", "dtype"), [(32, "uint16"), (128, "uint32"), (512, "uint16")])
def test_a_record_is_the_example_that_tfds_writes(tmp_path, row_length, dtype):
    import tensorflow_datasets as tfds

    row = np.arange(row_length, dtype=dtype)
    features = tfds.features.FeaturesDict(
        {
            "input_ids": tfds.features.Tensor(
                shape=(row_length,),
                dtype=np.dtype(dtype),
                encoding=tfds.features.Encoding.BYTES,
            )
        }
    )
    with RowWriter(str(tmp_path / "rows"), row_length, dtype) as writer:
        writer.write(row[None])
    data = (tmp_path / "rows").read_bytes()
    assert data[12:-4] == features.serialize_example({"input_ids": row})
    assert len(data) == tfrecord.record_size(row_length, dtype)


def test_the_bytes_are_those_that_tensorflow_writes(tmp_path):
    # tf.io.TFRecordWriter of TensorFlow 2.21, a tf.train.Example of one bytes feature, ids 0..3.
    golden = "1d00000000000000602fdf230a1b0a190a09696e7075745f696473120c0a0a0a08000001000200030088b98a1f"
    with RowWriter(str(tmp_path / "rows"), 4, "uint16") as writer:
        writer.write(np.arange(4)[None])
    assert (tmp_path / "rows").read_bytes().hex() == golden


@pytest.mark.parametrize("offset", [0, 9, 20, 60, -1])
def test_a_flipped_byte_names_the_file_and_the_row(path, offset):
    write(path)
    size = tfrecord.record_size(32, "uint16")
    data = bytearray(files.read_bytes(path))
    data[3 * size + offset % size] ^= 0x10
    with files.atomic_write(path) as file:
        file.write(data)
    damaged = RowFile(path, 32, "uint16")
    np.testing.assert_array_equal(damaged[[0, 4]], ROWS[[0, 4]])
    with pytest.raises(UserError, match="rows: row 3 is damaged"):
        damaged[[1, 3]]


def test_a_truncated_file_is_rejected_when_it_is_opened(path):
    write(path)
    data = files.read_bytes(path)
    with files.atomic_write(path) as file:
        file.write(data[:-30])
    with pytest.raises(UserError, match=r"rows: truncated.*4 complete rows.*\(row 4\)"):
        RowFile(path, 32, "uint16")


@pytest.mark.parametrize(("row_length", "dtype"), [(64, "uint16"), (32, "uint32")])
def test_rows_of_another_shape_are_rejected(path, row_length, dtype):
    write(path)
    with pytest.raises(UserError, match=f"not rows of {row_length} {dtype} ids"):
        RowFile(path, row_length, dtype)


def test_rows_outside_the_file_are_an_index_error(path):
    write(path)
    with pytest.raises(IndexError):
        RowFile(path, 32, "uint16")[[5]]
    with pytest.raises(IndexError):
        RowFile(path, 32, "uint16")[[-1]]


def test_an_interrupted_writer_leaves_no_file(path):
    def write_and_fail() -> None:
        with RowWriter(path, 32, "uint16") as writer:
            writer.write(ROWS)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_and_fail()
    assert not files.exists(path)


def test_a_missing_file_is_a_user_error(path):
    with pytest.raises(UserError, match="rows: no such file"):
        RowFile(path, 32, "uint16")
