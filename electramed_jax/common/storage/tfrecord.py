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

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

FEATURE = "input_ids"
_HEAD_BYTES = 12  # the uint64 length and its CRC
_CRC_BYTES = 4


def record_size(row_length: int, dtype: str) -> int:
    """Bytes of one record of `row_length` ids of `dtype` ("uint16" or "uint32")."""
    return RecordLayout(row_length, dtype).record_size


class RecordLayout:
    """How rows of `row_length` ids of `dtype` stand in records, all of one size.

    Attributes:
      lead: uint8, what stands before the ids in every record: its head and the Example's tags.
      record_size: bytes.
    """

    def __init__(self, row_length: int, dtype: str):
        self.row_length, self.dtype = row_length, _little_endian(dtype)
        self.lead = np.frombuffer(_lead(row_length, dtype), np.uint8)
        self.record_size = len(self.lead) + _payload_size(row_length, dtype) + _CRC_BYTES

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Records, uint8[n, record_size], of rows [n, T] of ids that fit the dtype."""
        lead = len(self.lead)
        records = np.empty((len(rows), self.record_size), np.uint8)
        records[:, :lead] = self.lead
        records[:, lead:-_CRC_BYTES] = np.ascontiguousarray(rows, self.dtype).view(np.uint8).reshape(len(rows), -1)
        records[:, -_CRC_BYTES:] = _masked_crcs(records).view(np.uint8).reshape(len(rows), _CRC_BYTES)
        return records

    def decode(self, records: np.ndarray) -> np.ndarray:
        """Ids [n, T] of records: a view of them, in which an id may begin at an odd address."""
        return records[:, len(self.lead) : -_CRC_BYTES].view(self.dtype)

    def find_damaged(self, records: np.ndarray) -> np.ndarray:
        """Numbers of the records, int64, that are not as `encode` made them."""
        stored = np.ascontiguousarray(records[:, -_CRC_BYTES:]).view("<u4").reshape(-1)
        good = (_masked_crcs(records) == stored) & (records[:, : len(self.lead)] == self.lead).all(axis=1)
        return np.flatnonzero(~good)


def frame_record(data: bytes) -> bytes:
    """One TFRecord: length, its CRC, data, their CRC."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked_crc(length)) + data + struct.pack("<I", _masked_crc(data))


class RowWriter:
    """Writes rows to a new file, which appears under its name only when the `with` block ends well.

    Attributes:
      rows: rows written so far.
      sha256: hexadecimal digest of the file, once closed.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        self.path, self.rows, self.sha256 = path, 0, ""
        self._layout = RecordLayout(row_length, dtype)
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
        assert rows.ndim == 2 and rows.shape[1] == self._layout.row_length, rows.shape
        data = self._layout.encode(rows).data
        self._digest.update(data)
        self._file.write(data)
        self.rows += len(rows)


class RowFile:
    """A file of rows, opened for a look at any of them: `file[rows] -> ids[n, T]`.

    Each run of neighbouring rows is one range read, and each record read is checked against its CRC.
    (`data/blocks.py` is what feeds training.)

    Raises:
      UserError: missing or cut-short file, one written for another row length or dtype, and at
        indexing a damaged record; names the file and row.
    """

    def __init__(self, path: str, row_length: int, dtype: str):
        self.path, self.row_length = path, row_length
        self._layout = layout = RecordLayout(row_length, dtype)
        total = files.size(path)
        self._rows, rest = divmod(total, layout.record_size)
        first = np.frombuffer(files.read_range(path, 0, len(layout.lead)), np.uint8)
        if total and not np.array_equal(first, layout.lead):
            raise UserError(
                f"{path}: row 0 is damaged, or these are not rows of {row_length} {dtype} ids; "
                "pack again, or name the folder whose manifest.json describes this file"
            )
        if rest:
            raise UserError(
                f"{path}: cut short: {total:,} bytes are {self._rows:,} whole rows of "
                f"{layout.record_size} bytes and {rest} bytes over (row {self._rows}); "
                "copy the file again or pack again"
            )

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, indices: np.ndarray | slice | Sequence[int]) -> np.ndarray:
        """Ids [n, T] of the rows asked for, in the order asked for."""
        if isinstance(indices, slice):
            indices = np.arange(*indices.indices(self._rows))
        indices = np.asarray(indices, np.int64)
        if indices.size and not (0 <= indices.min() and indices.max() < self._rows):
            raise IndexError(f"{self.path}: rows {indices.min()}..{indices.max()} of {self._rows}")
        wanted, back = np.unique(indices, return_inverse=True)
        records = np.empty((len(wanted), self._layout.record_size), np.uint8)
        begins = [0, *(np.flatnonzero(np.diff(wanted) != 1) + 1).tolist(), len(wanted)]
        for begin, end in itertools.pairwise(begins):
            if begin < end:
                read_records(self.path, self._layout, int(wanted[begin]), records[begin:end])
        for bad in self._layout.find_damaged(records).tolist():
            raise damaged_row_error(self.path, int(wanted[bad]))
        return self._layout.decode(records)[back]


def read_records(path: str, layout: RecordLayout, first: int, into: np.ndarray) -> None:
    """Reads records `first` .. of a file in one go, as they are, unchecked, into uint8[count, record_size].

    Raises:
      UserError: the file has no such records any more.
    """
    if files.read_into(path, first * layout.record_size, into) < into.nbytes:
        raise UserError(f"{path}: changed while it was read: rows {first}.. are missing; copy it again or pack again")


def iterate_records(path: str) -> Iterator[bytes]:
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


def damaged_row_error(path: str, row: int) -> UserError:
    return UserError(f"{path}: row {row} is damaged (checksum differs); copy the file again or pack again")


def _masked_crc(data: bytes) -> int:
    return int(_mask(np.array([google_crc32c.value(data)], np.uint32))[0])


def _masked_crcs(records: np.ndarray) -> np.ndarray:
    """The masked CRC32C of each record's data, uint32[n]."""
    data = records[:, _HEAD_BYTES:-_CRC_BYTES]
    return _mask(np.fromiter(map(google_crc32c.value, data), np.uint32, len(data)))


def _mask(crcs: np.ndarray) -> np.ndarray:
    return ((crcs >> 15) | (crcs << 17)) + np.uint32(0xA282EAD8)  # modulo 2**32


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
