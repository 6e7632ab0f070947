"""TFRecord files of fixed-size rows, written sequentially and read in any order.

A record is a `tf.train.Example` with the single bytes feature `input_ids`, which holds T little-endian unsigned
integers. All records of a file have therefore the same size, and row i begins at byte i * record_size. Framing of a
record (see https://www.tensorflow.org/tutorials/load_data/tfrecord): length as uint64, masked CRC32C of the length,
data, masked CRC32C of the data.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import struct
from collections.abc import Iterator, Sequence
from types import TracebackType

import google_crc32c
import numpy as np

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

FEATURE = "input_ids"
END_BYTES = 1 << 16  # of each end of a file, in its `ends_sha256`
_HEADER_BYTES = 12  # uint64 length, uint32 CRC of the length
_CRC_BYTES = 4


def record_size(row_length: int, dtype: str) -> int:
    """Returns the bytes of one record of `row_length` ids of `dtype` ("uint16" or "uint32")."""
    return RecordLayout(row_length, dtype).record_size


class RecordLayout:
    """Binary layout of the records of a file.

    Attributes:
      row_length: ids in a row, T.
      dtype: little-endian dtype of the ids.
      prefix: uint8[n], the bytes before the ids in every record: the record's header and the Example's tags.
      record_size: bytes of a record.
    """

    def __init__(self, row_length: int, dtype: str):
        self.row_length, self.dtype = row_length, _little_endian(dtype)
        self.prefix = np.frombuffer(_prefix(row_length, dtype), np.uint8)
        self.record_size = len(self.prefix) + _payload_size(row_length, dtype) + _CRC_BYTES

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Returns the records uint8[n, record_size] of rows int[n, T]; the ids must fit the dtype."""
        prefix_size = len(self.prefix)
        records = np.empty((len(rows), self.record_size), np.uint8)
        records[:, :prefix_size] = self.prefix
        records[:, prefix_size:-_CRC_BYTES] = (
            np.ascontiguousarray(rows, self.dtype).view(np.uint8).reshape(len(rows), -1)
        )
        records[:, -_CRC_BYTES:] = _masked_crcs(records).view(np.uint8).reshape(len(rows), _CRC_BYTES)
        return records

    def decode(self, records: np.ndarray) -> np.ndarray:
        """Returns the ids dtype[n, T] of records, as a view of them; an id may begin at an odd address."""
        return records[:, len(self.prefix) : -_CRC_BYTES].view(self.dtype)

    def find_damaged(self, records: np.ndarray) -> np.ndarray:
        """Returns the indices int64[k] of records that differ from what `encode` writes, by checksum or prefix."""
        stored = np.ascontiguousarray(records[:, -_CRC_BYTES:]).view("<u4").reshape(-1)
        good = (_masked_crcs(records) == stored) & (records[:, : len(self.prefix)] == self.prefix).all(axis=1)
        return np.flatnonzero(~good)


def frame_record(data: bytes) -> bytes:
    """Returns one TFRecord: length, CRC of the length, data, CRC of the data."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


class RowWriter:
    """Writes rows to a new file, which appears under its name only if the `with` block raises no exception.

    Attributes:
      path: final name of the file.
      rows: rows written so far.
      sha256: hexadecimal digest of the file; empty until it is closed.
      ends_sha256: digest of its ends, as `hash_ends` returns it; empty until it is closed.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        self.path, self.rows, self.sha256, self.ends_sha256 = path, 0, "", ""
        self._first = self._last = b""
        self._layout = RecordLayout(row_length, dtype)
        self._digest = hashlib.sha256()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RowWriter:
        self._file = self._stack.enter_context(files.atomic_write(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        suppressed = self._stack.__exit__(kind, error, traceback)
        self.sha256 = self._digest.hexdigest()
        self.ends_sha256 = hashlib.sha256(self._first + self._last).hexdigest()
        return suppressed

    def write(self, rows: np.ndarray) -> None:
        """Appends rows int[n, T]; the ids must fit the dtype."""
        assert rows.ndim == 2 and rows.shape[1] == self._layout.row_length, rows.shape
        data = self._layout.encode(rows).data
        self._digest.update(data)
        self._file.write(data)
        self.rows += len(rows)
        written = data.tobytes() if data.nbytes < END_BYTES else bytes(data.cast("B")[-END_BYTES:])
        if len(self._first) < END_BYTES:
            self._first += bytes(data.cast("B")[: END_BYTES - len(self._first)])
        self._last = (self._last + written)[-END_BYTES:]


def hash_ends(path: str) -> str:
    """Returns the hexadecimal SHA-256 of the first and the last END_BYTES of a file, one after the other.

    They overlap in a file of fewer than twice as many bytes.
    """
    size = files.size(path)
    first = files.read_range(path, 0, END_BYTES)
    last = files.read_range(path, max(0, size - END_BYTES), END_BYTES)
    return hashlib.sha256(first + last).hexdigest()


class RowFile:
    """Random access to the rows of a file: `file[indices] -> dtype[n, T]`.

    Each run of consecutive rows is one range read, and each record is verified by its CRC. Training reads through
    `data/dataset/block_reader.py` instead.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        """Opens a file of rows of `row_length` ids of `dtype`.

        Raises:
          UserError: the file is missing or truncated, or was written with another row length or dtype.
        """
        self.path, self.row_length = path, row_length
        self._layout = layout = RecordLayout(row_length, dtype)
        total = files.size(path)
        self._rows, rest = divmod(total, layout.record_size)
        first = np.frombuffer(files.read_range(path, 0, len(layout.prefix)), np.uint8)
        if total and not np.array_equal(first, layout.prefix):
            raise UserError(
                f"{path}: row 0 is damaged, or these are not rows of {row_length} {dtype} ids; "
                "pack again, or name the folder with the manifest.json of this file"
            )
        if rest:
            raise UserError(
                f"{path}: truncated: {total:,} bytes are {self._rows:,} complete rows of "
                f"{layout.record_size} bytes and {rest} bytes of the next (row {self._rows}); "
                "copy the file again or pack again"
            )

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, indices: np.ndarray | slice | Sequence[int]) -> np.ndarray:
        """Returns the ids dtype[n, T] of rows, in the order of `indices`.

        Raises:
          IndexError: an index is negative or too large.
          UserError: a record is damaged; names the file and row.
        """
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self._rows))
        indices = np.asarray(indices, np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < self._rows):
            raise IndexError(f"{self.path}: rows {indices.min()}..{indices.max()} of {self._rows}")
        rows, inverse = np.unique(indices, return_inverse=True)
        records = np.empty((len(rows), self._layout.record_size), np.uint8)
        bounds = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
        for begin, end in itertools.pairwise(bounds):
            if begin < end:
                read_records(self.path, self._layout, int(rows[begin]), records[begin:end])
        for damaged in self._layout.find_damaged(records).tolist():
            raise damaged_row_error(self.path, int(rows[damaged]))
        return self._layout.decode(records)[inverse]


def read_records(path: str, layout: RecordLayout, first: int, into: np.ndarray) -> None:
    """Reads consecutive records, beginning with record `first`, into uint8[count, record_size], without verification.

    Raises:
      UserError: the file is shorter than that.
    """
    if files.read_into(path, first * layout.record_size, into) < into.nbytes:
        raise UserError(
            f"{path}: the file changed since it was opened: rows {first}.. are missing; copy or pack it again"
        )


def iterate_records(path: str) -> Iterator[bytes]:
    """Yields the data of each record of any TFRecord file.

    Raises:
      UserError: the file is missing, truncated or damaged; names the record.
    """
    with files.open_read(path) as file:
        for number in itertools.count():
            header = file.read(_HEADER_BYTES)
            if not header:
                return
            length, crc = struct.unpack("<QI", header) if len(header) == _HEADER_BYTES else (0, None)
            if crc != _masked_crc(header[:8]):
                raise _damaged_record_error(path, number)
            data, data_crc = file.read(length), file.read(_CRC_BYTES)
            if len(data) != length or data_crc != struct.pack("<I", _masked_crc(data)):
                raise _damaged_record_error(path, number)
            yield data


def _damaged_record_error(path: str, number: int) -> UserError:
    return UserError(f"{path}: record {number} is damaged or truncated; copy or create the file again")


def damaged_row_error(path: str, row: int) -> UserError:
    """Returns the error for a row with a wrong checksum."""
    return UserError(f"{path}: row {row} is damaged (checksum differs); copy the file again or pack again")


def _masked_crc(data: bytes) -> int:
    return int(_mask(np.array([google_crc32c.value(data)], np.uint32))[0])


def _masked_crcs(records: np.ndarray) -> np.ndarray:
    """Returns the masked CRC32C of the data of each record, uint32[n]."""
    data = records[:, _HEADER_BYTES:-_CRC_BYTES]
    return _mask(np.fromiter(map(google_crc32c.value, data), np.uint32, len(data)))


def _mask(crcs: np.ndarray) -> np.ndarray:
    return ((crcs >> 15) | (crcs << 17)) + np.uint32(0xA282EAD8)  # modulo 2**32


def _little_endian(dtype: str) -> np.dtype:
    assert dtype in ("uint16", "uint32"), dtype
    return np.dtype(dtype).newbyteorder("<")


def _payload_size(row_length: int, dtype: str) -> int:
    return row_length * _little_endian(dtype).itemsize


def _prefix(row_length: int, dtype: str) -> bytes:
    """Returns the bytes before the ids in every record: the record's header and the Example's tags."""
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
