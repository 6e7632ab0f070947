"""TFRecord files of fixed-size rows: written in a stream, read at any row.

A record is a `tf.train.Example` with the single bytes feature `input_ids`, which holds T
little-endian unsigned integers. Every record of a file has therefore the same size, and row i
begins at byte i * record_size. Framing: https://www.tensorflow.org/tutorials/load_data/tfrecord
(length as uint64, masked CRC32C of the length, data, masked CRC32C of the data).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence

import google_crc32c
import numpy as np

from electramed_jax.common import files
from electramed_jax.common.errors import UserError

FEATURE = "input_ids"
_CRC_BYTES = 4


def record_size(row_length: int, dtype: str) -> int:
    """Bytes of one record of `row_length` ids of `dtype` ("uint16" or "uint32")."""
    return len(_lead(row_length, dtype)) + _payload_size(row_length, dtype) + _CRC_BYTES


class RowWriter:
    """Writes rows to a new file, which appears under its name only when the `with` block ends well.

    Attributes:
      rows: rows written so far.
      sha256: hexadecimal digest of the file, once closed.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        self.path, self.rows, self.sha256 = path, 0, ""
        self._row_length, self._dtype = row_length, _little_endian(dtype)
        self._lead = np.frombuffer(_lead(row_length, dtype), np.uint8)
        self._digest = hashlib.sha256()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RowWriter:
        self._file = self._stack.enter_context(files.atomic_write(self.path))
        return self

    def __exit__(self, *error: object) -> bool | None:
        suppressed = self._stack.__exit__(*error)
        self.sha256 = self._digest.hexdigest()
        return suppressed

    def write(self, rows: np.ndarray) -> None:
        """Appends rows [n, T] of ids that fit the dtype."""
        assert rows.ndim == 2 and rows.shape[1] == self._row_length, rows.shape
        lead, payload = len(self._lead), self._row_length * self._dtype.itemsize
        records = np.empty((len(rows), lead + payload + _CRC_BYTES), np.uint8)
        records[:, :lead] = self._lead
        ids = np.ascontiguousarray(rows, self._dtype)
        records[:, lead : lead + payload] = ids.view(np.uint8).reshape(len(rows), payload)
        crcs = np.fromiter(map(_masked_crc, records[:, _HEAD_BYTES:-_CRC_BYTES]), "<u4", len(rows))
        records[:, lead + payload :] = crcs.view(np.uint8).reshape(len(rows), _CRC_BYTES)
        data = records.data
        self._digest.update(data)
        self._file.write(data)
        self.rows += len(rows)


class RowFile:
    """A file of rows, opened for random access: `file[rows] -> ids[n, T]`.

    Local files are mapped into memory; of remote ones each run of neighbouring rows is one range
    read. Each record read is checked against its CRC.

    Raises:
      UserError: missing or cut-short file, one written for another row length or dtype, and at
        indexing a damaged record; names the file and row.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        self.path, self.row_length, self._dtype = path, row_length, _little_endian(dtype)
        self._lead = np.frombuffer(_lead(row_length, dtype), np.uint8)
        self._record_size = record_size(row_length, dtype)
        total = files.size(path)
        self._rows, rest = divmod(total, self._record_size)
        first = np.frombuffer(files.read_range(path, 0, len(self._lead)), np.uint8)
        if total and not np.array_equal(first, self._lead):
            raise UserError(
                f"{path}: row 0 is damaged, or these are not rows of {row_length} {dtype} ids; "
                "pack again, or name the folder whose manifest.json describes this file"
            )
        if rest:
            raise UserError(
                f"{path}: cut short: {total:,} bytes are {self._rows:,} whole rows of "
                f"{self._record_size} bytes and {rest} bytes over (row {self._rows}); "
                "copy the file again or pack again"
            )
        self._mapped = None
        if (local := files.local_path(path)) is not None and self._rows:
            self._mapped = np.memmap(local, np.uint8, "r", shape=(self._rows, self._record_size))

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, indices: np.ndarray | slice | Sequence[int]) -> np.ndarray:
        """Ids [n, T] of the rows asked for, in the order asked for."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self._rows))
        indices = np.asarray(indices, np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < self._rows):
            raise IndexError(f"{self.path}: rows {indices.min()}..{indices.max()} of {self._rows}")
        records = self._read(indices)
        self._check(records, indices)
        payload = np.ascontiguousarray(records[:, len(self._lead) : -_CRC_BYTES])
        return payload.view(self._dtype).reshape(len(indices), self.row_length)

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if self._mapped is not None:
            return np.asarray(self._mapped[indices])
        wanted, back = np.unique(indices, return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1)
        parts = [self._read_run(int(run[0]), len(run)) for run in runs if len(run)]
        records = np.concatenate(parts) if parts else np.empty((0, self._record_size), np.uint8)
        return records[back]

    def _read_run(self, start: int, count: int) -> np.ndarray:
        data = files.read_range(self.path, start * self._record_size, count * self._record_size)
        if len(data) != count * self._record_size:
            raise UserError(f"{self.path}: changed while it was read; rows {start}.. are missing")
        return np.frombuffer(data, np.uint8).reshape(count, self._record_size)

    def _check(self, records: np.ndarray, indices: np.ndarray) -> None:
        stored = np.ascontiguousarray(records[:, -_CRC_BYTES:]).view("<u4").reshape(-1)
        found = map(_masked_crc, records[:, _HEAD_BYTES:-_CRC_BYTES])
        good = np.fromiter(found, np.uint32, len(records)) == stored
        good &= (records[:, : len(self._lead)] == self._lead).all(axis=1)
        if not good.all():
            row = int(indices[np.argmin(good)])
            raise UserError(f"{self.path}: row {row} is damaged (checksum differs); copy the file again or pack again")


def read_records(path: str) -> Iterator[bytes]:
    """The records of any TFRecord file, one after the other.

    Raises:
      UserError: missing, cut short or damaged; names the record.
    """
    with files.open_read(path) as file:
        for number in itertools.count():
            head = file.read(_HEAD_BYTES)
            if not head:
                return
            length, crc = struct.unpack("<QI", head) if len(head) == _HEAD_BYTES else (0, None)
            if crc != _masked_crc(head[:8]):
                raise UserError(f"{path}: record {number} is damaged or cut short; copy or make the file again")
            data, crc = file.read(length), file.read(_CRC_BYTES)
            if len(data) != length or crc != struct.pack("<I", _masked_crc(data)):
                raise UserError(f"{path}: record {number} is damaged or cut short; copy or make the file again")
            yield data


_HEAD_BYTES = 12  # the uint64 length and its CRC


def _masked_crc(data: bytes | np.ndarray) -> int:
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _little_endian(dtype: str) -> np.dtype:
    assert dtype in ("uint16", "uint32"), dtype
    return np.dtype(dtype).newbyteorder("<")


def _payload_size(row_length: int, dtype: str) -> int:
    return row_length * _little_endian(dtype).itemsize


def _lead(row_length: int, dtype: str) -> bytes:
    """What stands before the ids in every record: the record's head and the Example's tags."""
    payload = _payload_size(row_length, dtype)
    tags = b""
    # Outermost last: BytesList.value, Feature.bytes_list, the map's value, (key), entry, features.
    for tag in (b"\x0a", b"\x0a", b"\x12"):
        tags = tag + _varint(payload + len(tags)) + tags
    tags = b"\x0a" + _varint(len(FEATURE)) + FEATURE.encode() + tags
    for tag in (b"\x0a", b"\x0a"):
        tags = tag + _varint(payload + len(tags)) + tags
    length = struct.pack("<Q", len(tags) + payload)
    return length + struct.pack("<I", _masked_crc(length)) + tags


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
